"""The variants of MCFA are what their names say."""

import pytest

from mcfa_fast.models import LossWeights
from mcfa_fast.experiments.methods_old import METHODS
from mcfa_fast.experiments.variants_old import ABLATION, CHANGES

TABLE_III = {"v0": "", "v1": "vtov", "v2": "vtos", "v3": "stov", "v4": "vtov vtos"}


@pytest.mark.parametrize("task", ["zsl", "gzsl"])
def test_ablation_is_table_iii(task):
    paper = METHODS["mcfa-v5"].config(task, 0)
    assert paper == paper.paper(task)
    for name, used in TABLE_III.items():
        weights = LossWeights.of(METHODS[f"mcfa-{name}"].config(task, 0))
        for contrast in ("vtov", "vtos", "stov"):
            expected = getattr(paper, f"{contrast}_weight") if contrast in used else 0
            assert getattr(weights, contrast) == expected
        assert weights._replace(vtov=0, vtos=0, stov=0) == LossWeights.of(paper)._replace(
            vtov=0, vtos=0, stov=0
        )


def test_changes_differ_from_the_paper_in_what_they_name():
    assert not ABLATION.keys() & CHANGES.keys()
    for name, options in CHANGES.items():
        config = METHODS[name].config("zsl", 0)
        changed = {
            key for key, value in config.model_dump().items() if value != getattr(PAPER, key)
        }
        assert changed == {key for key, value in options.items() if value != getattr(PAPER, key)}
        assert changed


def test_cada_vae_has_no_contrast_and_warms_up():
    config = METHODS["cada-vae"].config("gzsl", 0)
    first, last = LossWeights.of(config, 1), LossWeights.of(config, config.epochs)
    assert last == LossWeights(1, 0.25, 2.37, 8.13, 0, 0, 0)
    assert first.kl == pytest.approx(0.25 / 93) and first.alignment == 0


PAPER = METHODS["mcfa-v5"].config("zsl", 0)
