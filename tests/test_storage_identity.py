"""What a folder belongs to, and texts that change with the content of tensors."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mcfa_fast.storage import CheckpointError, Fingerprint, changes, claim, fingerprint

CONTENT = {"system": "mcfa", "config": {"epochs": 3, "hidden": (4, 5)}, "temperature": 0.1}


def test_a_folder_is_claimed_once(tmp_path):
    path = tmp_path / "training.json"
    claim(path, CONTENT)
    assert json.loads(path.read_text()) == {**CONTENT, "config": {"epochs": 3, "hidden": [4, 5]}}
    before = path.stat().st_mtime_ns
    claim(path, CONTENT)
    assert path.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="belongs to a different run") as caught:
        claim(path, {**CONTENT, "config": {"epochs": 4, "hidden": (4, 5)}, "system": "acmr"})
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: ")
    assert "config.epochs was 3 and is 4; system was 'mcfa' and is 'acmr'" in message
    assert json.loads(path.read_text())["system"] == "mcfa"


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"3", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_claim_is_one_clear_error(tmp_path, content):
    path = tmp_path / "training.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"training\.json: damaged"):
        claim(path, CONTENT)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("found", "wanted", "texts"),
    [
        ({}, {}, []),
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {}, ["a was 1 and is None"]),
        ({}, {"a": 1}, ["a was None and is 1"]),
        ({"b": 1, "a": {"y": [1], "x": 2}}, {"b": 2, "a": {"y": [2], "x": 2}},
         ["a.y was [1] and is [2]", "b was 1 and is 2"]),
        ({"a": {"x": 1}}, {"a": 3}, ["a was {'x': 1} and is 3"]),
    ],
)  # fmt: skip
def test_changes(found, wanted, texts):
    assert changes(found, wanted) == texts


DTYPES = (torch.float32, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool)


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    shape=st.sampled_from([(), (3,), (2, 2)]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_the_fingerprint_does_not_depend_on_the_pieces(cuts, shape, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randint(0, 2, (sum(cuts), *shape), generator=generator).to(dtype)
    seen = Fingerprint()
    pieces = list(seen.watch(whole.split(cuts)))
    assert torch.equal(torch.cat(pieces), whole)
    assert seen.text == fingerprint([whole])
    assert seen.text == fingerprint([whole.clone().requires_grad_(dtype.is_floating_point)])


def test_the_fingerprint_changes_with_everything():
    values = torch.arange(12.0).view(4, 3)
    others = [
        values.double(),
        values.view(3, 4),
        values.view(12),
        values[:3],
        values.flip(0),
        values.nextafter(torch.tensor(torch.inf)),
        torch.where(values == 0, -0.0, values),
    ]
    texts = [fingerprint([other]) for other in (values, *others)]
    assert len(set(texts)) == len(texts)
    assert fingerprint([values.t().contiguous().t()]) == texts[0], "but not with the strides"
