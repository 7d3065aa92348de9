"""What a sweep may vary: texts of the command line, and checks against the options' own bounds."""

import pytest

from mcfa_fast.classifiers import RunConfig
from mcfa_fast.experiments.space import (
    Choice,
    Range,
    grid,
    parse_choice,
    parse_range,
    resolve_space,
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("epochs=5:50", ("epochs", Range(5, 50))),
        ("epochs=5:50:5", ("epochs", Range(5, 50, step=5))),
        ("learning_rate=1e-4:0.01:log", ("learning_rate", Range(1e-4, 0.01, log=True))),
        ("temperature=0.5:2:0.25", ("temperature", Range(0.5, 2, step=0.25))),
    ],
)
def test_ranges_are_read(text, wanted):
    assert parse_range(text) == wanted


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("positives=in,out", ("in", "out")),
        ("positives=in, out", ("in", "out")),
        ("epochs=1,20", (1, 20)),
        ("chunk_size=null,64", (None, 64)),
        ("drop_last=true,false", (True, False)),
        ("kl_warmup=null,[0,10],[5,20]", (None, [0, 10], [5, 20])),
    ],
)
def test_choices_are_read(text, values):
    key, choice = parse_choice(text)
    assert key == text.partition("=")[0] and choice == Choice(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs", "expected KEY=LOW:HIGH.*got 'epochs'"),
        ("epochs=5", "expected KEY=LOW:HIGH"),
        ("epochs=a:b", "expected KEY=LOW:HIGH"),
        ("epochs=1:9:2:log", "expected KEY=LOW:HIGH"),
        ("epochs=9:1", "epochs: expected LOW < HIGH, got 9:1"),
        ("epochs=1:9:0", "epochs: step: expected more than 0 and at most 8, got 0"),
        ("epochs=1:9:10", "epochs: step: expected more than 0 and at most 8, got 10"),
        ("learning_rate=0:1:log", "learning_rate: log: expected LOW > 0"),
        ("learning_rate=nan:1", "expected LOW < HIGH"),
    ],
)
def test_bad_ranges_are_named(text, message):
    with pytest.raises(ValueError, match=f"search: .*{message}"):
        parse_range(text)


@pytest.mark.parametrize("text", ["positives", "positives=", "epochs=3,3"])
def test_bad_choices_are_named(text):
    with pytest.raises(ValueError, match="choose: "):
        parse_choice(text)


def test_values_get_the_type_of_their_option():
    found = resolve_space(
        {
            "learning_rate": Range(1, 2, step=1),
            "batch_size": Range(64.0, 256.0, step=64.0),
            "softmax.unseen_samples": Range(64.0, 256.0, step=64.0),
            "temperature": Choice((1, 2)),
        },
        RunConfig.of("mcfa"),
    )
    assert [type(v) for v in found["learning_rate"].values] == [float, float]
    assert [type(v) for v in found["batch_size"].values] == [int] * 4
    assert [type(v) for v in found["softmax.unseen_samples"].values] == [int] * 4
    assert [type(v) for v in found["temperature"].values] == [float, float]
    found = resolve_space({"kl_warmup": Choice((None, [0, 10]))}, RunConfig.of("cada-vae"))
    assert found["kl_warmup"].values == (None, (0, 10))


def test_options_are_searched_by_their_full_names():
    space = {"training.epochs": Range(1, 2), "whitening": Choice((0.5,))}
    found = resolve_space(space, RunConfig.of("mcfa", head="ensemble"))
    assert list(found) == ["epochs", "nearest.whitening"]
    assert list(resolve_space({"penalty": Choice((1.0,))}, RunConfig.of("ridge"))) == ["penalty"]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"epoch": Range(1, 2)}, "epoch: mcfa has no such option; similar are epochs"),
        ({"penalty": Range(1, 2)}, "penalty: mcfa has no such option"),
        ({"epochs": Range(0, 2)}, "epochs: .*greater than or equal to 1, got 0"),
        ({"temperature": Range(1.0, 1e4)}, "temperature: .*less than or equal to 1000"),
        ({"epochs": Range(1.5, 2)}, "epochs: .*integer.*got 1.5"),
        ({"epochs": Range(1, 4, step=1.5)}, "epochs: expected a step of a whole number, got 1.5"),
        ({"softmax.epochs": Range(0, 2)}, "softmax.epochs: .*greater than or equal to 1, got 0"),
        ({"positives": Range(1, 2)}, "positives: not a number"),
        ({"drop_last": Range(0, 1)}, "softmax.drop_last: not a number"),
        ({"positives": Choice(("out", "both"))}, "positives: .*'out' or 'in', got 'both'"),
        ({"learning_rate": Choice((1e-3, float("inf")))}, "learning_rate: .*finite"),
        ({"kl_weight": Choice((1, 1.0))}, "expected different values"),
        ({"seed": Range(0, 5)}, "seed: not to be searched, it is given by 'seeds'"),
        ({"task": Choice(("zsl", "gzsl"))}, "task: .*given by the argument 'task'"),
        ({"head": Choice(("softmax",))}, "head: .*given by the argument 'head'"),
        ({"selection": Choice(("none", "test"))}, "selection.rule: not to be searched, scores on"),
        ({"selection.folds": Range(2, 5)}, "selection.folds: not to be searched, scores on folds"),
        ({"nearest.whitening": Choice((1.0,))}, "the head 'softmax' does not depend on it"),
        (
            {"epochs": Range(1, 2), "training.epochs": Range(1, 3)},
            "training.epochs: expected to be searched once, but it is epochs, too",
        ),
    ],
)
def test_bad_spaces_are_named(space, message):
    with pytest.raises(ValueError, match=message):
        resolve_space(space, RunConfig.of("mcfa"))


@pytest.mark.parametrize(
    ("dimension", "inside", "outside"),
    [
        (Range(1, 3), (1, 3), (0, 4, None, True, "1")),
        (Range(1, 9, step=4), (1, 5, 9), (2, 4)),
        (Range(0.1, 0.4, step=0.1), (0.1, 0.3), (0.15, 0.45)),
        (Range(0.1, 0.4), (0.1, 0.25), (0.05, 0.41)),
        (Choice((None, (0, 10))), (None, (0, 10)), ((0, 11), 0)),
    ],
)
def test_a_space_knows_its_values(dimension, inside, outside):
    assert all(value in dimension for value in inside)
    assert not any(value in dimension for value in outside)


def test_grid_needs_steps():
    with pytest.raises(ValueError, match="learning_rate: a grid needs a step"):
        grid({"epochs": Range(1, 3), "learning_rate": Range(0.1, 0.2)})
    points = grid({"epochs": Range(1, 5, step=3), "learning_rate": Range(0.1, 0.3, step=0.1)})
    assert [(p["epochs"], p["learning_rate"]) for p in points] == [
        (epochs, rate) for epochs in (1, 4) for rate in (0.1, 0.2, 0.3)
    ]
