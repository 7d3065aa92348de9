"""Choosing epochs and calibrations on held-out seen classes."""

import numpy as np
import pytest
import torch
from zero_shot_data import NEW, SEEN, config, make_images, make_semantics

from mcfa_fast.evaluation import harmonic_mean
from mcfa_fast.inference import METHODS, ClassifierHeads, MCFAClassifier, encode_images, validate
from mcfa_fast.inference import validation as module
from mcfa_fast.training import Trainer

IMAGES, LABELS = make_images(SEEN, rows=15)
SEMANTICS = torch.tensor(make_semantics()[:NEW])


pytestmark = pytest.mark.usefixtures("one_thread")


def run(task="zsl", run_dir=None, semantics=SEMANTICS, **options):
    settings = config(task, selection="validation", **{"epochs": 6, **options})
    return validate(settings, IMAGES, LABELS, semantics, run_dir=run_dir)


@pytest.fixture
def script(monkeypatch):
    """Makes the fold's scores a given list, and returns the models' weights at each epoch."""

    def prepare(accuracies):
        seen, values = [], iter(accuracies)

        def score(model, *arguments):
            seen.append({name: value.clone() for name, value in model.state_dict().items()})
            value = next(values)
            if value is None:
                raise KeyboardInterrupt
            return value

        monkeypatch.setattr(module, "_nearest_score", score)
        return seen

    return prepare


@pytest.fixture
def trainings(monkeypatch):
    """Records the rows and descriptors that models are trained on."""
    recorded = []

    class Spy(Trainer):
        def __init__(self, config, features, labels, semantics, **options):
            recorded.append((features, labels, semantics))
            super().__init__(config, features, labels, semantics, **options)

    monkeypatch.setattr(module, "Trainer", Spy)
    return recorded


def rows_of(images):
    """Numbers of the rows of IMAGES that these are; every row occurs once in it."""
    return [int(np.flatnonzero((row == IMAGES).all(axis=1))[0]) for row in images]


@pytest.mark.parametrize("task", ["zsl", "gzsl"])
def test_held_out_classes_are_not_trained_on(task, trainings):
    chosen = run(task, epochs=1)
    ((features, labels, semantics),) = trainings
    assert len(chosen.held_out) == 2  # a fifth
    kept = np.setdiff1d(SEEN, chosen.held_out)
    rows = rows_of(features)
    assert np.array_equal(LABELS[rows], SEEN[labels])
    assert torch.equal(semantics, SEMANTICS[: len(SEEN)])
    counts = np.bincount(LABELS[rows], minlength=10)
    assert counts[list(chosen.held_out)].sum() == 0
    # Conventional: all rows of the others. Generalized: a fifth of each is a test row.
    assert set(counts[kept]) == ({15} if task == "zsl" else {12})


def test_numbers_of_classes_may_have_gaps():
    """Seen classes 0, 2, 4, ... and a class count that is larger."""
    semantics = torch.rand(40, 6, generator=torch.Generator().manual_seed(0))
    semantics[0:20:2] = SEMANTICS[:10]
    settings = config("zsl", epochs=2, selection="validation")
    wanted = validate(settings, IMAGES, LABELS, SEMANTICS)
    spread = validate(settings, IMAGES, 2 * LABELS, semantics)
    assert spread.held_out == tuple(2 * c for c in wanted.held_out)
    assert spread.score == wanted.score


def test_descriptors_of_unseen_classes_do_not_matter():
    other = SEMANTICS.clone()
    other[len(SEEN) :] = 1e6
    assert run("gzsl") == run("gzsl", semantics=other)


def test_score_is_the_accuracy_of_the_nearest_held_out_class():
    settings = config("zsl", epochs=4)
    fold = module._make_fold(settings, LABELS)
    model = Trainer(settings, IMAGES[fold.train], LABELS[fold.train], SEMANTICS).fit()
    rows = fold.test_unseen
    images = encode_images(model, IMAGES[rows])[0].double()
    classes = model.encode_semantic(SEMANTICS[fold.held_out])[0].detach().double()
    cosines = (images @ classes.T) / classes.norm(dim=1)
    right = (fold.held_out[cosines.argmax(dim=1).numpy()] == LABELS[rows]).tolist()
    score = module._nearest_score(model, fold, IMAGES[rows], SEMANTICS)
    assert score == pytest.approx(np.mean(right))


def test_generalized_score_is_the_harmonic_mean_at_its_best_calibration():
    settings = config("gzsl", epochs=4)
    fold = module._make_fold(settings, LABELS)
    model = Trainer(settings, IMAGES[fold.train], LABELS[fold.train], SEMANTICS).fit()
    rows = np.concatenate([fold.test_seen, fold.test_unseen])
    images = encode_images(model, IMAGES[rows])[0].double()
    classes = model.encode_semantic(SEMANTICS[: len(SEEN)])[0].detach().double()
    cosines = (images @ classes.T) / images.norm(dim=1, keepdim=True) / classes.norm(dim=1)
    seen = ~torch.isin(torch.arange(len(SEEN)), torch.tensor(fold.held_out))

    def harmonic(calibration):
        right = (cosines - calibration * seen).argmax(dim=1).numpy() == LABELS[rows]
        kinds = np.isin(LABELS[rows], fold.held_out)
        return harmonic_mean(right[~kinds].mean(), right[kinds].mean())  # classes of equal size

    best = max(harmonic(calibration) for calibration in np.linspace(-1, 1, 4001))
    score = module._nearest_score(model, fold, IMAGES[rows], SEMANTICS)
    assert 0 < best == pytest.approx(score, abs=0.01)
    assert score >= best - 1e-9


@pytest.mark.parametrize(
    ("accuracies", "epochs"),
    [([0.1, 0.5, 0.9, 0.2, 0.9, 0.3], 3), ([0.4] * 6, 1), ([0, 0, 0, 0, 0, 0.1], 6)],
)
def test_first_best_epoch_is_chosen(accuracies, epochs, script):
    script(accuracies)
    chosen = run()
    assert (chosen.epochs, chosen.score) == (epochs, max(accuracies))
    assert chosen.calibration == {}


def test_calibrations_maximise_the_harmonic_mean_of_the_best_epoch(script):
    weights = script([0.1, 0.2, 0.9, 0.3, 0.9, 0.5])
    chosen = run("gzsl")
    settings = config("gzsl", selection="validation", epochs=6)
    fold = module._make_fold(settings, LABELS)
    images, labels = IMAGES[fold.train], LABELS[fold.train]
    semantics = SEMANTICS[: len(SEEN)]
    model = Trainer(settings, images, labels, semantics).model
    model.load_state_dict(weights[2])
    held_out = torch.tensor(fold.held_out)
    heads = ClassifierHeads.from_images(model, images, labels, semantics, held_out)

    def harmonic(method, calibration):
        right = []
        for rows in (fold.test_seen, fold.test_unseen):
            latents, labels = encode_images(model, IMAGES[rows])[0], LABELS[rows]
            scores = heads.scores(latents, torch.arange(10), method, chosen.weight)
            scores[:, heads.seen_classes] -= calibration
            hits = scores.argmax(dim=1).numpy() == labels
            right.append(np.mean([hits[labels == c].mean() for c in np.unique(labels)]))
        return harmonic_mean(*right)

    for method in METHODS:
        best = harmonic(method, chosen.calibration[method] * heads.calibration_unit(method))
        assert best > 0
        assert best >= max(harmonic(method, c) for c in np.linspace(-3, 3, 301)) - 1e-9


@pytest.mark.parametrize("task", ["zsl", "gzsl"])
@pytest.mark.parametrize("killed_at", [2, 5])
def test_interrupted_run_resumes_to_the_same(task, killed_at, script, tmp_path):
    accuracies = [0.1, 0.3, 0.9, 0.2, 0.9, 0.3]
    script(accuracies)
    wanted = run(task)
    script([*accuracies[: killed_at - 1], None])
    with pytest.raises(KeyboardInterrupt):
        run(task, run_dir=tmp_path)
    script(accuracies[killed_at - 1 :])
    assert run(task, run_dir=tmp_path) == wanted
    script([])  # nothing is left to train
    assert run(task, run_dir=tmp_path) == wanted


def test_classifier_trains_the_chosen_number_of_epochs(tmp_path):
    settings = config("gzsl", selection="validation", epochs=6)
    classifier = MCFAClassifier(settings, run_dir=tmp_path / "run")
    classifier.fit(IMAGES, LABELS, SEMANTICS)
    chosen = validate(settings, IMAGES, LABELS, SEMANTICS)
    assert classifier.validation_ == chosen
    plain = MCFAClassifier(config("gzsl", epochs=chosen.epochs), weight=chosen.weight)
    plain.fit(IMAGES, LABELS, SEMANTICS)
    for method in METHODS:
        for one in (plain, classifier):
            one.set_params(method=method)
        unit = classifier.heads_.sharpness if method == "ensemble" else 1
        calibration = chosen.calibration[method] * unit
        assert classifier.effective_calibration == calibration
        assert np.array_equal(
            classifier.decision_function(IMAGES),
            plain.decision_function(IMAGES, calibration=calibration),
        )
    assert classifier.effective_weight == chosen.weight
    classifier.set_params(calibration=0.0)
    assert classifier.effective_calibration == 0
    classifier.set_params(calibration=None).save(tmp_path / "file")
    assert MCFAClassifier.load(tmp_path / "file").validation_ == chosen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_classes": 1}, "validation_classes: expected 2 or more"),
        ({"validation_classes": 6}, "holding out 6 of 10 seen classes leaves fewer than the 5"),
        ({"validation_classes": 10, "sampler": "batch"}, "holding out 10 of 10"),
    ],
)
def test_rejects_too_few_or_too_many_held_out_classes(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)
