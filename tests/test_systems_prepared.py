"""What the systems over prepared features have in common; all score by one module."""

import io

import numpy as np
import pytest
import torch
from systems_helpers import config_of, fit_system, make_system, scores, settings
from zero_shot_data import NEW, SEEN, UNSEEN, make_images, make_semantics

from mcfa_fast.data.inputs import training_data
from mcfa_fast.systems.base import ExportsScores, Scores
from mcfa_fast.systems.fit import fit, fit_path
from mcfa_fast.systems.prepared import PreparedSystem
from mcfa_fast.systems.registry import SYSTEMS, find
from mcfa_fast.systems.solved import SolvedSystem

SEMANTICS = make_semantics()[:NEW]
IMAGES, LABELS = make_images(SEEN, rows=20)
TEST = make_images(np.arange(NEW), rows=10, seed=9)[0]
ALL = [name for name, entry in SYSTEMS.items() if issubclass(entry.system, PreparedSystem)]
SOLVED = [name for name in ALL if issubclass(find(name).system, SolvedSystem)]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=SOLVED)
def solved(request):
    return request.param


@pytest.fixture(params=ALL)
def name(request):
    return request.param


def images(features=IMAGES, labels=LABELS, semantics=SEMANTICS):
    return training_data(features, labels, semantics, None, None)


def fitted(name, **options):
    return fit_system(name, (IMAGES, LABELS), SEMANTICS, **options)


def unit(values):
    values = values.astype(np.float64)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def given(monkeypatch, data, semantics=SEMANTICS):
    """What a system's statistics are taken from."""
    kept = []
    original = find("ridge").system.statistics
    monkeypatch.setattr(
        find("ridge").system,
        "statistics",
        lambda self, data: kept.append(data) or original(self, data),
    )
    system = make_system("ridge", data)
    fit(system, data)
    return system, kept[0]


def test_there_are_thirteen():
    assert len(ALL) == 13 and len(SOLVED) == 7


def test_features_and_descriptors_are_prepared(monkeypatch):
    system, (x, y, s) = given(monkeypatch, images())
    np.testing.assert_allclose(x, unit(IMAGES) - unit(IMAGES).mean(axis=0), atol=1e-14)
    assert np.array_equal(y, LABELS) and x.dtype == s.dtype == np.float64
    np.testing.assert_allclose(s, unit(SEMANTICS)[SEEN])
    wanted = unit(TEST) - unit(IMAGES).mean(axis=0)
    rows = system.scaler(torch.from_numpy(TEST).double())
    np.testing.assert_allclose(rows.numpy(), wanted, atol=1e-14)


def test_rows_of_zeros_do_no_harm(name):
    features = IMAGES.copy()
    features[3] = 0
    system = fit_system(name, (features, LABELS), SEMANTICS)
    assert np.isfinite(scores(system, features, SEMANTICS)).all()


def test_half_precision_is_accumulated_in_full(tmp_path, monkeypatch):
    half = IMAGES.astype(np.float16)
    np.save(tmp_path / "features.npy", half)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    _, (x, _, _) = given(monkeypatch, images(mapped))
    np.testing.assert_allclose(x, unit(half) - unit(half).mean(axis=0), atol=1e-14)


def test_classes_may_have_gaps(name):
    spread = np.zeros((2 * NEW, SEMANTICS.shape[1]), np.float32)
    spread[::2] = SEMANTICS
    gaps = fit_system(name, (IMAGES, 2 * LABELS), spread)
    wanted = scores(fitted(name), TEST, SEMANTICS)
    np.testing.assert_array_equal(scores(gaps, TEST, SEMANTICS), wanted)


def test_solves_a_problem(solved):
    """Features are a noisy linear view of binary attributes, so that every system can."""
    rng = np.random.default_rng(0)
    table = (rng.random((44, 10)) > 0.5).astype(np.float32)
    labels = np.repeat(np.arange(44), 12)
    view = rng.normal(size=(10, 20))
    features = table[labels] @ view + 0.5 * rng.normal(size=(len(labels), 20))
    seen = labels < 40
    chosen = {"penalty": 0.1} if "penalty" in find(solved).grid else {}
    system = fit_system(solved, (features[seen], labels[seen]), table, **chosen)
    among_unseen = 40 + scores(system, features[~seen], table[40:]).argmax(axis=1)
    assert (among_unseen == labels[~seen]).mean() > 0.95
    among_all = scores(system, features[seen], table).argmax(axis=1)
    assert (among_all == labels[seen]).mean() > 0.7


def test_a_path_is_the_same_as_single_fits(solved):
    """In both orders: what settings share must not depend on the setting before."""
    every = settings(find(solved))
    some = every[:: max(1, len(every) // 5)]
    for grid in (some, some[::-1]):
        configs = [config_of(solved, **setting) for setting in grid]
        path = fit_path(find(solved).system, configs, images())
        for setting, system in zip(grid, path, strict=True):
            wanted = scores(fitted(solved, **setting), TEST, SEMANTICS)
            np.testing.assert_array_equal(scores(system, TEST, SEMANTICS), wanted)


def test_settings_make_a_difference(solved):
    every = settings(find(solved))
    configs = [config_of(solved, **setting) for setting in every]
    found = {
        scores(system, TEST, SEMANTICS).tobytes()
        for system in fit_path(find(solved).system, configs, images())
    }
    assert len(found) >= len(every) / 2


def test_descriptors_of_unseen_classes_do_not_train(name):
    other = SEMANTICS.copy()
    other[UNSEEN] = np.random.default_rng(0).random((2, SEMANTICS.shape[1]))
    system, wanted = fit_system(name, (IMAGES, LABELS), other), fitted(name)
    for key, value in wanted.state_dict().items():
        assert torch.equal(system.state_dict()[key], value), key
    unseen = [scores(wanted, TEST, table[UNSEEN]) for table in (SEMANTICS, other)]
    assert not np.array_equal(*unseen)


def test_more_attributes_than_classes_and_constant_features(name):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(NEW, 50))
    features = np.column_stack([IMAGES, np.zeros(len(IMAGES)), np.zeros(len(IMAGES))])
    system = fit_system(name, (features, LABELS), table)
    assert np.isfinite(scores(system, features, table)).all()


def test_a_state_is_all_that_was_learned(name):
    """Also of the classes, whose descriptors some need to score others."""
    system = fitted(name)
    copy = make_system(name, images())
    copy.load_state_dict({key: value.clone() for key, value in system.state_dict().items()})
    np.testing.assert_array_equal(
        scores(copy, TEST, SEMANTICS), scores(system, TEST, SEMANTICS)
    )


def test_a_system_that_is_fitted_anew_forgets_its_scores(name):
    system = fitted(name)
    before = scores(system, TEST, SEMANTICS)
    other = fit_system(name, (IMAGES[::-1].copy(), LABELS), SEMANTICS)
    system.load_state_dict(other.state_dict())
    after = scores(system, TEST, SEMANTICS)
    assert not np.array_equal(after, before)
    np.testing.assert_array_equal(after, scores(other, TEST, SEMANTICS))
    fit(system, images())
    np.testing.assert_array_equal(scores(system, TEST, SEMANTICS), before)


def test_the_global_generator_is_left_alone(name):
    state = torch.random.get_rng_state()
    scores(fitted(name), TEST, SEMANTICS)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("format", ["eager", "torchscript", "export"])
def test_scorers_compute_the_scores(name, format):
    """In float32, for any number of rows, and apart from the system they come from."""
    system = fitted(name)
    assert isinstance(system, Scores) and isinstance(system, ExportsScores)
    module = system.scorer(torch.from_numpy(SEMANTICS))
    rows, buffer = torch.from_numpy(TEST), io.BytesIO()
    if format == "torchscript":
        torch.jit.save(torch.jit.script(module), buffer)
        module = torch.jit.load(io.BytesIO(buffer.getvalue()))
    elif format == "export":
        shapes = ({0: torch.export.Dim("rows")},)
        program = torch.export.export(module, (rows[:7],), dynamic_shapes=shapes)
        torch.export.save(program, buffer)
        module = torch.export.load(io.BytesIO(buffer.getvalue())).module()
    wanted = scores(system, TEST, SEMANTICS)
    system.scaler.offset += 1.0
    for count in (1, 7, len(TEST)):
        got = module(rows[:count])
        assert got.dtype == torch.float32 and not got.requires_grad
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(got.numpy(), wanted[:count], rtol=1e-5, atol=2e-6 * scale)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("eszsl", "visual_penalty", -1),
        ("eszsl", "semantic_penalty", 0),
        ("ridge", "penalty", 0),
        ("sae", "penalty", float("nan")),
        ("sae", "direction", "both"),
        ("conse", "penalty", 0),
        ("conse", "top", 0),
        ("dap", "penalty", 0),
        ("iap", "penalty", 0),
        ("sync", "penalty", 0),
        ("sync", "width", 0),
        ("latem", "maps", 0),
        ("latem", "maps", 2.5),
        ("cmt", "hidden_units", 0),
        ("sse", "smoothing", -0.1),
        ("sse", "penalty", float("inf")),
        ("devise", "epochs", 0),
        ("ale", "learning_rate", 0.0),
        ("sje", "batch_size", -1),
        ("sje", "seed", -1),
    ],
)
def test_rejects_options(name, option, value):
    with pytest.raises(ValueError, match=option):
        config_of(name, **{option: value})


@pytest.mark.parametrize("name", ["dap", "iap", "sync"])
def test_rejects_seen_classes_of_one_descriptor(name):
    table = SEMANTICS.copy()
    table[SEEN] = table[0]
    with pytest.raises(ValueError, match="semantics: expected different descriptors"):
        fit_system(name, (IMAGES, LABELS), table)
