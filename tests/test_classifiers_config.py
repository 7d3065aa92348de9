"""What a run is, by the names of its options."""

import pytest
from pydantic import ValidationError

from mcfa_fast.classifiers import RunConfig
from mcfa_fast.systems.dual_encoder import DualEncoderConfig
from mcfa_fast.systems.mcfa import MCFAConfig
from mcfa_fast.systems.registry import RECOMMENDED, SYSTEMS

RUNS = [
    (name, preset, task)
    for name, entry in SYSTEMS.items()
    for preset in entry.presets
    for task in ("zsl", "gzsl")
]


@pytest.mark.parametrize(("name", "preset", "task"), RUNS)
def test_every_preset_of_every_system_is_a_run(name, preset, task):
    run = RunConfig.of(name, preset=preset, task=task)
    assert (run.system, run.preset, run.task) == (name, preset, task)
    entry = SYSTEMS[name]
    assert isinstance(run.options, entry.system.Config)
    assert tuple(run.heads) == entry.heads and run.head in run.heads
    assert RunConfig.model_validate_json(run.model_dump_json()) == run
    assert run.replace(run.names) == run, "every option by its own name"


@pytest.mark.parametrize(("name", "preset", "task"), RUNS)
def test_settings_are_the_grid_and_the_present_one(name, preset, task):
    run, grid = RunConfig.of(name, preset=preset, task=task), SYSTEMS[name].grid
    settings = run.settings()
    assert {option: run.names[option] for option in grid} in settings
    assert all(setting.keys() == grid.keys() for setting in settings)
    assert len({str(run.replace(setting)) for setting in settings}) == len(settings)
    if SYSTEMS[name].shortens:
        assert max(setting["epochs"] for setting in settings) == run.names["epochs"]


@pytest.mark.parametrize("name", ["epochs", "training.epochs"])
def test_fixed_options_are_not_in_the_settings(name):
    run = RunConfig.of("mcfa")
    assert [setting["epochs"] for setting in run.settings()] == [10, 20, 30, 40, 50]
    assert run.settings({name: 50}) == [{}]
    eszsl = RunConfig.of("eszsl").settings({"visual_penalty": 2.0})
    assert all(setting.keys() == {"semantic_penalty"} for setting in eszsl)


def test_preset_gives_heads_and_selection_too():
    paper, reference = (RunConfig.of("mcfa", task="gzsl", preset=p) for p in ("paper", "reference"))
    assert (paper.selection.rule, reference.selection.rule) == ("none", "test")
    assert (paper.heads["softmax"].epochs, paper.heads["softmax"].seen_samples) == (23, 200)
    assert paper.heads["softmax"].resample and not reference.heads["softmax"].resample
    assert RunConfig.of().system == RECOMMENDED
    assert RunConfig.of().selection.rule == "calibration"


def test_a_system_may_be_given_by_its_options():
    config = MCFAConfig.paper("zsl", epochs=3)
    run = RunConfig.of(config, task="gzsl", options={"temperature": 0.5})
    assert run.system == "mcfa"
    assert run.options == config.replace(temperature=0.5)
    assert RunConfig.of(DualEncoderConfig()).system == "dual-encoder"


def test_options_go_to_their_owner():
    run = RunConfig.of("mcfa", task="gzsl").replace(
        {
            "temperature": 0.5,
            "epochs": 3,
            "training.batch_size": 9,
            "softmax.epochs": 5,
            "whitening": 2.0,
            "nearest.seen_gain": 3.0,
            "ensemble.weight": 0.25,
            "selection": "calibration",
            "selection.folds": 4,
        }
    )
    assert run.options.temperature == 0.5
    assert (run.options.training.epochs, run.options.training.batch_size) == (3, 9)
    assert run.heads["softmax"].epochs == 5
    nearest = run.heads["nearest"]
    assert (nearest.whitening, nearest.seen_gain) == (2.0, 3.0)
    assert run.heads["ensemble"].weight == 0.25
    assert (run.selection.rule, run.selection.folds) == ("calibration", 4)


def test_replace_keeps_what_it_does_not_name():
    run = RunConfig.of("mcfa", task="gzsl", preset="reference")
    changed = run.replace({"softmax.epochs": 5})
    assert changed.replace({"softmax.epochs": 23}) == run
    assert changed != run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, "epoch: mcfa has no such option; similar are epochs"),
        ({"softmax.epoch": 3}, "softmax.epoch: mcfa has no such option; similar are"),
        ({"temprature": 3}, "temprature: .* similar are .*temperature"),
        ({"zzzz": 3}, "zzzz: mcfa has no such option$"),
        ({"training": {}}, "training: mcfa has no such option"),
        ({"seed": 3}, "seed: not an option; it is given by the argument 'seed'"),
        ({"head": "nearest"}, "head: not an option; it is given by the argument"),
        ({"epochs": 0}, r"epochs\s+Input should be greater than or equal to 1"),
        ({"softmax.epochs": 0}, r"epochs\s+Input should be"),
        ({"selection": "folds"}, r"rule\s+Input should be"),
        ({"visual_penalty": 1.0}, "visual_penalty: mcfa has no such option"),
    ],
)
def test_wrong_changes_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        RunConfig.of("mcfa", options=changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"system": "mcf"}, "system: expected one of .*mcfa.*, got 'mcf'"),
        ({"system": "mcfa", "preset": "best"}, "preset: mcfa has paper, reference.*, got 'best'"),
        ({"system": "mcfa", "head": "scores"}, "head: mcfa has softmax, .*, got 'scores'"),
        ({"system": "mcfa", "task": "fsl"}, "task: expected 'zsl' or 'gzsl', got 'fsl'"),
    ],
)
def test_unknown_names_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RunConfig.of(**arguments)


def test_arguments_of_a_finished_run():
    run = RunConfig.of("mcfa").with_arguments(head="nearest", seed=4)
    assert (run.head, run.options.seed) == ("nearest", 4)
    assert run.with_arguments() == run
    with pytest.raises(ValueError, match="head: mcfa has softmax, nearest, ensemble, got 'scores'"):
        run.with_arguments(head="scores")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("heads"),
        lambda content: content["heads"].update(scores={}),
        lambda content: content["options"].update(zzz=1),
        lambda content: content["options"].update(temperature=-1),
        lambda content: content.update(system="zzz"),
        lambda content: content.update(zzz=1),
        lambda content: content.update(head="scores"),
        lambda content: content.update(preset=3),
    ],
)
def test_a_wrong_file_is_refused(change):
    content = RunConfig.of("mcfa").model_dump(mode="json")
    change(content)
    with pytest.raises(ValueError):
        RunConfig.model_validate(content)


def test_runs_are_immutable():
    run = RunConfig.of("mcfa")
    with pytest.raises(ValidationError, match="frozen"):
        run.task = "gzsl"


def test_choosing_on_test_images_is_for_reference_presets():
    with pytest.raises(ValueError, match="selection: rule 'test' .*optimistic"):
        RunConfig.of("mcfa", options={"selection": "test"})
    reference = RunConfig.of("mcfa", preset="reference")
    assert reference.replace({"selection": "none"}).selection.rule == "none"
