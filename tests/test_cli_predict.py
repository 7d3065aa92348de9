"""``mcfa-fast predict`` on a digits run of one epoch: its inputs stay, and bad values are named."""

import shutil

import numpy as np
import pytest
from cli_run import invoke

import mcfa_fast as mf

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def features(tmp_path):
    np.save(tmp_path / "mine.npy", mf.data.load("digits").features[:20])
    return tmp_path / "mine.npy"


@pytest.mark.parametrize("head", ["softmax", "nearest", "ensemble"])
def test_every_head_answers(run_dir, features, tmp_path, head):
    output = tmp_path / "out.npy"
    result = invoke("predict", run_dir, features, "-o", output, "--head", head, "--format", "npy")
    assert result.exit_code == 0, result.output
    assert f"20 rows classified with head {head!r}" in result.output
    classifier = mf.ZeroShotClassifier.load(run_dir / "classifier.pt").with_head(head)
    assert np.array_equal(np.load(output)["class"][:, 0], classifier.predict(np.load(features)))


@pytest.mark.parametrize("name", ["mine.npy", "link.csv"])
def test_the_features_are_not_written_over(run_dir, features, name):
    before = features.read_bytes()
    features.with_name("link.csv").symlink_to(features)
    result = invoke("predict", run_dir, features, "-o", features.with_name(name))
    assert result.exit_code == 1
    assert "--output: " in result.stderr and "would be overwritten" in result.stderr
    assert features.read_bytes() == before


def test_the_classifier_is_not_written_over(run_dir, features, tmp_path):
    run = shutil.copytree(run_dir, tmp_path / "run")
    result = invoke("predict", run, features, "-o", run / "classifier.pt")
    assert result.exit_code == 1 and "would be overwritten" in result.stderr
    assert (run / "classifier.pt").read_bytes() == (run_dir / "classifier.pt").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--calibration", "nan"], "--calibration: expected a finite number, got nan"),
        (["--head", "forest"], "head: mcfa has softmax, nearest, ensemble, got 'forest'"),
    ],
)
def test_bad_values_write_nothing(run_dir, features, tmp_path, options, message):
    result = invoke("predict", run_dir, features, "-o", tmp_path / "out.csv", *options)
    assert result.exit_code == 1 and message in result.stderr
    assert not (tmp_path / "out.csv").exists()
