"""Contestants are found by name, and all are tuned by the same protocol."""

import pytest

from mcfa_fast.experiments import Contestant, resolve_contestants
from mcfa_fast.experiments.contestants import default_opponent, group_names
from mcfa_fast.selection import SelectionConfig
from mcfa_fast.systems.mcfa.presets import ABLATION, CHANGES
from mcfa_fast.systems.registry import RECOMMENDED, SYSTEMS


def names(*given):
    return [contestant.name for contestant in resolve_contestants(given)]


def test_systems_presets_and_groups_are_found_in_the_order_of_the_registry():
    assert names("ridge", "mcfa", "eszsl") == ["mcfa", "eszsl", "ridge"]
    assert names("mcfa:v5", "mcfa:paper", "mcfa:reference", "mcfa") == [
        "mcfa",
        "mcfa:reference",
        "mcfa:v5",
    ]
    assert names("closed-form") == ["eszsl", "ridge", "sae"]
    assert names("all") == list(SYSTEMS)
    assert names("ablation") == [f"mcfa:{name}" for name in ABLATION]
    assert names("changes") == [f"mcfa:{name}" for name in CHANGES]
    assert {"closed-form", "generative", "ablation", "changes"} <= set(group_names())
    assert resolve_contestants([]) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gan", "systems: expected systems among dual-encoder, .*groups among .*got 'gan'"),
        ("gan:paper", "systems: expected systems among .*got 'gan:paper'"),
        ("mcfa:v9", "systems: mcfa has presets paper, reference, v0, .*got 'mcfa:v9'"),
        ("mcfa:", "systems: mcfa has presets"),
        ("", "systems: expected"),
    ],
)
def test_unknown_names_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        resolve_contestants([name])


def test_labels_leave_out_what_there_is_one_of():
    assert Contestant("eszsl", "paper").label("scores") == "eszsl"
    assert Contestant("mcfa", "paper").label("nearest") == "mcfa/nearest"
    assert Contestant("mcfa", "v0").label("softmax") == "mcfa:v0/softmax"
    assert default_opponent() == RECOMMENDED


@pytest.mark.parametrize("task", ["zsl", "gzsl"])
def test_all_are_tuned_by_one_protocol_but_for_reference_presets(task):
    every = resolve_contestants([f"{s}:{p}" for s, entry in SYSTEMS.items() for p in entry.presets])
    others = [one for one in every if one.config(task, 7).selection != SelectionConfig(rule="grid")]
    assert Contestant("mcfa", "reference") in others
    assert all(one.preset == "reference" for one in others)
    assert all(one.config(task, 7).options.seed == 7 for one in every)


def test_presets_differ_from_the_papers_in_what_they_name():
    paper = Contestant("mcfa", "paper").config("zsl", 0).names
    assert not ABLATION.keys() & CHANGES.keys()
    for name, options in (ABLATION | CHANGES).items():
        found = Contestant("mcfa", name).config("zsl", 0).names
        changed = {key for key in paper if found[key] != paper[key]}
        assert changed == {key for key, value in options.items() if value != paper[key]}
        assert changed or name == "v5"


def test_contestants_that_are_no_more_come_last():
    known = [one.order for one in resolve_contestants(["all", "ablation"])]
    assert known == sorted(set(known))
    assert Contestant("gan", "paper").order > max(known)
    last = max(order for one in resolve_contestants(["changes"]) for order in [one.order])
    assert Contestant("mcfa", "v9").order > last
