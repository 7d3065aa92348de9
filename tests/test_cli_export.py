"""``mcfa-fast export`` on a digits run of one epoch."""

import numpy as np
import pytest
from cli_run import invoke

import mcfa_fast as mf

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("digits.pt", ["--head", "nearest"]),
        ("digits.pt2", []),
        ("digits", ["--format", "onnx", "--calibration", "0.5"]),
    ],
)
def test_export_writes_what_the_classifier_says(run_dir, tmp_path, name, options):
    result = invoke("export", run_dir, "-o", tmp_path / name, *options)
    assert result.exit_code == 0, result.output
    predictor = mf.load_exported(tmp_path / name)
    settings = dict(zip(options[::2], options[1::2], strict=True))
    classifier = mf.ZeroShotClassifier.load(run_dir / "classifier.pt")
    classifier = classifier.with_head(settings.get("--head", "softmax"))
    classifier.set_params(calibration=float(settings.get("--calibration", 0)))
    features = mf.data.load("digits").features[:100]
    np.testing.assert_allclose(
        predictor.scores(features), classifier.decision_function(features), atol=1e-5
    )
    assert predictor.class_names == mf.data.load("digits").class_names
    assert f"mcfa, head {predictor.metadata.head!r}, of 10 classes" in result.output


@pytest.mark.parametrize("options", [[], ["--head", "softmax"]])
def test_export_takes_the_head_of_the_saved_classifier(nearest_run, tmp_path, options):
    result = invoke("export", nearest_run, "-o", tmp_path / "digits.pt", *options)
    assert result.exit_code == 0, result.output
    head = mf.load_exported(tmp_path / "digits.pt").metadata.head
    assert head == ("softmax" if options else "nearest")


@pytest.mark.parametrize(
    ("run", "output", "options", "code", "message"),
    [
        ("no-such-run", "a.pt", [], 1, "no-such-run: expected the folder of a finished run"),
        (None, "a.pt", ["--format", "pickle"], 2, "pickle"),
        (None, "no-such-folder/a.pt", [], 1, "no-such-folder"),
        (None, "a.pt", ["--head", "forest"], 1, "head: mcfa has softmax, nearest, ensemble"),
        (None, "a.pt", ["--calibration", "nan"], 1, "--calibration: expected a finite number"),
    ],
)
def test_bad_usage(run_dir, tmp_path, run, output, options, code, message):
    result = invoke("export", run or run_dir, "-o", tmp_path / output, *options)
    assert result.exit_code == code
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_classifier_of_the_run_is_not_written_over(nearest_run):
    path = nearest_run / "classifier.pt"
    before = path.read_bytes()
    result = invoke("export", nearest_run, "-o", path)
    assert result.exit_code == 1 and "--output: " in result.stderr
    assert path.read_bytes() == before
