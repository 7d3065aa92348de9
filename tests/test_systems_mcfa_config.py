"""Options, presets and random streams."""

import pytest
import torch

from mcfa_fast.systems.mcfa.config import MCFAConfig

# λ1..λ5, τ, c, k, γ of Table I.
TABLE_I = {
    "zsl": (10, 1, 100, 100, 10, 2, 5, 5, 64),
    "gzsl": (1, 1, 0.1, 1, 1, 2, 5, 10, 64),
}
TABLE_I_OPTIONS = (
    "cross_reconstruction_weight",
    "alignment_weight",
    "vtov_weight",
    "vtos_weight",
    "stov_weight",
    "temperature",
    "classes_per_batch",
    "instances_per_class",
    "latent_features",
)


@pytest.mark.parametrize("preset", [MCFAConfig.paper, MCFAConfig.reference])
@pytest.mark.parametrize("task", ["zsl", "gzsl"])
def test_presets_hold_table_i(preset, task):
    config = preset(task)
    assert config.task == task
    assert tuple(getattr(config, name) for name in TABLE_I_OPTIONS) == TABLE_I[task]
    assert config.epochs == 50
    assert config.learning_rate == 1.5e-4


@pytest.mark.parametrize("preset", [MCFAConfig.paper, MCFAConfig.reference])
def test_presets_hold_the_classifier_settings(preset):
    zsl, gzsl = preset("zsl"), preset("gzsl")
    assert (zsl.classifier_epochs, zsl.seen_latents, zsl.unseen_latents) == (50, 0, 200)
    assert (gzsl.classifier_epochs, gzsl.seen_latents, gzsl.unseen_latents) == (23, 200, 400)
    for config in (zsl, gzsl):
        assert (config.classifier_batch_size, config.classifier_learning_rate) == (32, 1e-3)


@pytest.mark.parametrize("task", ["zsl", "gzsl"])
def test_reference_differs_from_paper_as_documented(task):
    paper = MCFAConfig.paper(task).model_dump()
    reference = MCFAConfig.reference(task).model_dump()
    expected = {
        "mode": "reference",
        "positives": "in",
        "sampling_scale": "variance",
        "noise": "row",
        "class_weighting": "rows",
        "shared_offsets": True,
        "seen_choice": "first",
        "resample_latents": False,
        "selection": "test",
    }
    if task == "gzsl":
        expected["drop_last"] = True
    assert {k: v for k, v in reference.items() if paper[k] != v} == expected


def test_defaults_are_the_paper_zsl_preset():
    assert MCFAConfig() == MCFAConfig.paper("zsl") == MCFAConfig.paper()


def test_only_the_preset_best_is_meant_for_the_nearest_class():
    presets = (MCFAConfig.paper, MCFAConfig.reference, MCFAConfig.best)
    methods = [preset(task).recommended_method for preset in presets for task in ("zsl", "gzsl")]
    assert methods == ["softmax"] * 4 + ["nearest"] * 2


def test_overrides_win():
    config = MCFAConfig.reference("gzsl", positives="out", drop_last=False, seen_latents=7)
    assert (config.positives, config.drop_last, config.seen_latents) == ("out", False, 7)


@pytest.mark.parametrize(
    "config", [MCFAConfig.paper("gzsl"), MCFAConfig.reference("zsl", batch_size=None, seed=2**62)]
)
def test_json_round_trip(config):
    assert MCFAConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("no_such_option", 1),
        ("mode", "other"),
        ("temperature", 0),
        ("temperature", 9e-4),
        ("temperature", float("nan")),
        ("vtov_weight", -1),
        ("vtov_weight", float("inf")),
        ("learning_rate", 0),
        ("epochs", 0),
        ("epochs", 1.5),
        ("classes_per_batch", 0),
        ("instances_per_class", 0),
        ("offset_window", 0),
        ("batch_size", 0),
        ("validation_classes", 0),
        ("unseen_latents", 0),
        ("seen_latents", -1),
        ("seed", -1),
        ("seed", 2**63),
        ("positives", "both"),
    ],
)
def test_invalid_options_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        MCFAConfig(**{name: value})
    with pytest.raises(ValueError, match=name):
        MCFAConfig().replace(**{name: value})


@pytest.mark.parametrize("preset", [MCFAConfig.paper, MCFAConfig.reference])
def test_unknown_task_is_refused(preset):
    with pytest.raises(ValueError, match="task: expected 'zsl' or 'gzsl', got 'fsl'"):
        preset("fsl")


def test_selection_on_test_rows_only_in_reference_mode():
    assert MCFAConfig.reference().selection == "test"
    with pytest.raises(ValueError, match="optimistic"):
        MCFAConfig.paper(selection="test")
    with pytest.raises(ValueError, match="optimistic"):
        MCFAConfig.reference().replace(mode="paper")


def test_config_is_immutable_and_replace_copies():
    config = MCFAConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.epochs = 3
    changed = config.replace(epochs=3)
    assert (config.epochs, changed.epochs) == (50, 3)
    assert changed.replace(epochs=50) == config


def test_every_option_is_described():
    undescribed = [k for k, field in MCFAConfig.model_fields.items() if not field.description]
    assert undescribed == []


def test_generator_depends_on_seed_and_stream_only():
    def draw(seed, stream):
        generator = MCFAConfig(seed=seed).generator(stream)
        return tuple(torch.rand(4, generator=generator).tolist())

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = draw(0, "sampler")
    torch.manual_seed(2)
    assert draw(0, "sampler") == first
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert len({first, draw(0, "noise"), draw(1, "sampler"), draw(1, "noise")}) == 4


def test_streams_are_stable_across_versions():
    # Saved runs resume with these streams, so the derivation must never change.
    assert MCFAConfig(seed=0).generator("noise").initial_seed() == 3674443432713553628
