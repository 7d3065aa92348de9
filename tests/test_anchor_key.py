"""The sums over pairs of anchors and keys against the float64 oracle, and what can be composed."""

import json
import subprocess
import sys
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mcfa_fast import ops, reference


class Pairs(NamedTuple):
    """The tensors of a call."""

    anchors: Tensor
    keys: Tensor | None = None
    anchor_labels: Tensor | None = None
    key_labels: Tensor | None = None
    self_index: Tensor | None = None

    def to(self, dtype):
        return self._replace(
            anchors=self.anchors.to(dtype), keys=None if self.keys is None else self.keys.to(dtype)
        )


def pairs(anchors, keys, width, *, labels=True, selves=False, classes=7, ignored=0.1, seed=0):
    """Random anchors and keys; `keys` is None for anchors that are their own."""
    generator = torch.Generator().manual_seed(seed)

    def rows(count):
        return torch.randn(count, width, dtype=torch.float64, generator=generator)

    def integers(count):
        values = torch.randint(-2, classes - 2, (count,), generator=generator)
        values[torch.rand(count, generator=generator) < ignored] = -100
        return values if labels else None

    result = Pairs(rows(anchors), anchor_labels=integers(anchors))
    if keys is None:
        return result
    result = result._replace(keys=rows(keys), key_labels=integers(keys))
    if selves:
        index = torch.randint(-1, keys + 1, (anchors,), generator=generator)
        result = result._replace(self_index=index)
    return result


def results(module, given, temperature, wanted=("anchors", "keys", "temperature"), **options):
    """The sums, and the gradients of a weighted sum of the finite ones, by name."""
    tau = torch.tensor(temperature, dtype=torch.float64)
    leaves = {"anchors": given.anchors, "keys": given.keys, "temperature": tau}
    leaves = {name: leaf for name, leaf in leaves.items() if leaf is not None}
    leaves = {k: v.detach().requires_grad_(k in wanted) for k, v in leaves.items()}
    called = given._replace(**{k: v for k, v in leaves.items() if k != "temperature"})
    sums = module.anchor_key(*called, leaves["temperature"], **options)
    total = torch.zeros((), dtype=torch.float64)
    for factor, entries in zip((1.0, 0.7, 0, -0.3, 0.4, 0), sums, strict=True):
        if factor:
            weights = torch.linspace(0.5, 2.0, entries.numel(), dtype=entries.dtype)
            total = total + factor * (entries.where(entries.isfinite(), 0) * weights).sum()
    wanted = [leaf for leaf in leaves.values() if leaf.requires_grad]
    gradients = torch.autograd.grad(total, wanted)
    names = [f"grad_{name}" for name, leaf in leaves.items() if leaf.requires_grad]
    return {**sums._asdict(), **dict(zip(names, gradients, strict=True))}


def assert_like_oracle(given, temperature, tolerance=1e-11, dtype=torch.float64, **options):
    given = given.to(dtype)
    ours = results(ops, given, temperature, **options)
    oracle = results(reference, given.to(torch.float64), temperature, **options)
    assert ours.keys() == oracle.keys()
    rows = [row for row in (given.anchors, given.keys) if row is not None and row.numel()]
    shortest = min((row.double().norm(dim=1).min().item() for row in rows), default=1.0)
    for name, want in oracle.items():
        got = ours[name]
        if not want.is_floating_point():
            assert torch.equal(got, want), name
            continue
        finite = want.isfinite()
        assert torch.equal(got[~finite].double(), want[~finite]), name
        # What gradients cancel from is as large as the norms divided by make it.
        least = max(1.0, 1 / shortest) if name.startswith("grad") else 1.0
        size = max(want[finite].abs().max().item() if finite.any() else 0.0, least)
        error = (got.double() - want)[finite].abs().max().item() if finite.any() else 0.0
        assert error <= tolerance * size, (name, error / size)


@pytest.mark.parametrize("positives", ["out", "in"])
@pytest.mark.parametrize("key_side", [False, True])
@pytest.mark.parametrize("selves", [False, True])
def test_sums_and_gradients_match_the_oracle(selves, key_side, positives):
    for temperature, normalize in ((0.5, True), (0.02, True), (2.0, False)):
        options = {"positives": positives, "key_side": key_side, "normalize": normalize}
        for shape in [(14, 9, 5), (130, 300, 20), (3, 200, 1), (300, 2, 8), (5, 3, 0)]:
            for labels in (True, False):
                given = pairs(*shape, labels=labels, selves=selves)
                assert_like_oracle(given, temperature, **options)


@pytest.mark.parametrize("positives", ["out", "in"])
def test_anchors_that_are_their_own_keys_match_the_oracle(positives):
    for key_side in (False, True):
        for shape in [(1, 4), (14, 5), (300, 20)]:
            for labels in (True, False):
                given = pairs(shape[0], None, shape[1], labels=labels)
                assert_like_oracle(given, 0.3, positives=positives, key_side=key_side)


@pytest.mark.parametrize(("anchors", "keys"), [(0, 4), (4, 0), (0, 0), (0, None)])
def test_without_anchors_or_keys_there_is_nothing_to_sum(anchors, keys):
    for positives in ("out", "in"):
        given = pairs(anchors, keys, 3)
        sums = ops.anchor_key(*given, 0.5, True, positives)
        for got, want in zip(sums, reference.anchor_key(*given, 0.5, True, positives), strict=True):
            assert torch.equal(got, want)


@pytest.mark.parametrize("positives", ["out", "in"])
def test_many_blocks_of_rows_match_the_oracle(positives):
    # Blocks hold 2048 rows or more: 2 of anchors and 2 of keys here, the last ones small.
    options = {"positives": positives, "key_side": True}
    assert_like_oracle(pairs(2080, 2060, 130, selves=True), 0.3, **options)
    assert_like_oracle(pairs(2080, None, 130), 0.3, **options)


@settings(max_examples=60, deadline=None)
@given(
    anchors=st.integers(0, 200),
    keys=st.one_of(st.none(), st.integers(0, 400)),
    width=st.integers(1, 40),
    log_temperature=st.floats(-2, 2),
    classes=st.integers(1, 90),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    labels=st.booleans(),
    selves=st.booleans(),
    options=st.fixed_dictionaries(
        {
            "positives": st.sampled_from(["out", "in"]),
            "key_side": st.booleans(),
            "normalize": st.booleans(),
        }
    ),
    in_float=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_any_call_matches_the_oracle(
    anchors,
    keys,
    width,
    log_temperature,
    classes,
    ignored,
    labels,
    selves,
    options,
    in_float,
    seed,
):
    chosen = {"labels": labels, "selves": selves, "classes": classes, "ignored": ignored}
    called = pairs(anchors, keys, width, seed=seed, **chosen)
    temperature = 10**log_temperature
    # Exponentials are as exact as their exponents, the similarities.
    largest = (1.0 if options["normalize"] else 10.0 * width) / temperature
    dtype = torch.float32 if in_float else torch.float64
    tolerance = (50 + anchors) * torch.finfo(dtype).eps * (1 + largest) ** 2
    assert_like_oracle(called, temperature, tolerance, dtype, **options)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
def test_half_precision_accumulates_in_float32(dtype, tolerance):
    given = pairs(200, 300, 24)
    for positives in ("out", "in"):
        sums = ops.anchor_key(*given.to(dtype), 0.5, True, positives)
        assert sums.log_sum_exp.dtype == sums.key_positives.dtype == torch.float32
        assert_like_oracle(given, 0.5, tolerance, dtype, positives=positives, key_side=True)


@pytest.mark.parametrize("wanted", [("anchors",), ("keys",), ("temperature",), ("keys", "anchors")])
def test_gradients_do_not_depend_on_which_are_wanted(wanted):
    for called in (pairs(40, 70, 6, selves=True), pairs(40, None, 6)):
        for positives in ("out", "in"):
            options = {"positives": positives, "key_side": True}
            every = results(ops, called, 0.3, **options)
            some = tuple(name for name in wanted if getattr(called, name, 0) is not None)
            if some:
                for name, got in results(ops, called, 0.3, some, **options).items():
                    torch.testing.assert_close(got, every[name], rtol=1e-12, atol=1e-12)


def test_keys_without_a_gradient_get_none():
    given = pairs(20, 30, 4)
    anchors = given.anchors.requires_grad_()
    ops.anchor_key(*given, 0.5).positives.sum().backward()
    assert anchors.grad.abs().sum() > 0 and given.keys.grad is None


def test_results_are_bitwise_the_same_again():
    given = pairs(700, 900, 33, selves=True).to(torch.float32)
    for positives in ("out", "in"):
        options = {"positives": positives, "key_side": True}
        first, again = (results(ops, given, 0.1, **options) for _ in range(2))
        assert all(torch.equal(first[name], again[name]) for name in first)


def test_results_do_not_depend_on_the_number_of_threads():
    given = pairs(700, 900, 33, selves=True).to(torch.float32)
    threads = torch.get_num_threads()
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        found.append(results(ops, given, 0.1, positives="in", key_side=True))
    torch.set_num_threads(threads)
    for name, want in found[0].items():
        torch.testing.assert_close(found[1][name], want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positives", ["out", "in"])
def test_sums_over_blocks_of_keys_add_up_to_those_over_all(positives):
    given = pairs(50, 90, 8)
    anchors = given.anchors

    def over(keys, labels):
        return ops.anchor_key(
            anchors, keys, given.anchor_labels, labels, None, 0.2, positives=positives
        )

    def loss(log_sum_exp, of_positives, counts):
        counted = counts > 0
        return (counts * log_sum_exp - of_positives)[counted].sum()

    results = []
    for split in (90, 33):
        keys = given.keys.clone().requires_grad_()
        anchors = given.anchors.clone().requires_grad_()
        blocks = [
            over(keys[:split], given.key_labels[:split]),
            over(keys[split:], given.key_labels[split:]),
        ]
        log_sum_exp = torch.logaddexp(blocks[0].log_sum_exp, blocks[1].log_sum_exp)
        if positives == "out":
            of_positives = blocks[0].positives + blocks[1].positives
        else:
            of_positives = torch.logaddexp(blocks[0].positives, blocks[1].positives)
        value = loss(log_sum_exp, of_positives, blocks[0].counts + blocks[1].counts)
        results.append([value, *torch.autograd.grad(value, (anchors, keys))])
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_nan_goes_where_it_belongs_and_stops_nothing():
    for normalize in (True, False):
        given = pairs(300, 300, 5, ignored=0)
        given.keys[7] = torch.nan
        sums = ops.anchor_key(*given, 0.5, True, "out", normalize)
        assert sums.log_sum_exp.isnan().all()
        assert sums.key_log_sum_exp.isnan().nonzero().tolist() == [[7]]
        leaf = given.anchors.requires_grad_()
        assert torch.autograd.grad(sums_of(given, normalize).sum(), leaf)[0].isnan().all()


def sums_of(given, normalize):
    return ops.anchor_key(*given, 0.5, True, "out", normalize).log_sum_exp


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": None}, "expected `key_labels` to be None without `keys`"),
        ({"keys": None, "key_labels": None}, "expected `self_index` to be None without `keys`"),
        (
            {"key_labels": None},
            "expected `anchor_labels` and `key_labels`, .* `anchor_labels` alone",
        ),
        (
            {"anchor_labels": None},
            "expected `anchor_labels` and `key_labels`, .* `key_labels` alone",
        ),
        ({"keys": torch.ones(4, 3)}, "expected `keys` to have D = 5 columns"),
        ({"self_index": torch.ones(3).long()}, r"expected `self_index` to have .* = \[20\]"),
    ],
)
def test_what_does_not_fit_together_is_named(changes, message):
    given = pairs(20, 30, 5, selves=True).to(torch.float32)._replace(**changes)
    with pytest.raises(ValueError, match=message):
        ops.anchor_key(*given, 0.5)


def test_backward_asks_for_the_sums_of_a_gradient():
    given = pairs(20, 30, 5)
    grads = (torch.ones(20, dtype=torch.float64), None, None, None)
    options = (torch.tensor(0.5), None, None, None, None, "out", True, -100, [True, True])
    with pytest.raises(ValueError, match="expected `lse` for `grad_lse`, but got None"):
        torch.ops.mcfa_fast.anchor_key_backward(*grads, *given, *options)


MEASURE = """
import json, sys
import torch
from mcfa_fast import ops

def resident(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(key))

def two_towers(images, texts):
    sums = ops.anchor_key(images, texts, None, None, None, 0.1, True)
    losses = (sums.log_sum_exp - sums.positives, sums.key_log_sum_exp - sums.key_positives)
    (sum(loss.mean() for loss in losses) / 2).backward()

def bank(anchors, keys):
    labels = torch.arange(len(anchors)) % 70
    sums = ops.anchor_key(anchors, keys, labels, torch.arange(len(keys)) % 70, None, 0.1)
    (sums.log_sum_exp - sums.positives / sums.counts).mean().backward()

case, anchors, keys, width = globals()[sys.argv[1]], *map(int, sys.argv[2:5])
detached = case is bank
case(torch.randn(600, width, requires_grad=True), torch.randn(600, width))  # loads what is used
a = torch.randn(anchors, width).requires_grad_()
k = torch.randn(keys, width).requires_grad_(not detached)
before = resident("VmRSS")
with open("/proc/self/clear_refs", "w") as clear:
    clear.write("5")
case(a, k)
print(json.dumps({"above": resident("VmHWM") - before, "finite": bool(a.grad.isfinite().all())}))
"""


@pytest.mark.parametrize(
    ("case", "shape", "megabytes"),
    [
        # Two gradients of 16 MiB; the matrix of similarities would be 256 MiB.
        ("two_towers", (8192, 8192, 512), 64),
        # The bank itself is 64 MiB, the matrix 4 GiB.
        ("bank", (512, 262144, 64), 32),
    ],
)
def test_memory_stays_linear(case, shape, megabytes):
    command = [sys.executable, "-c", MEASURE, case, *map(str, shape)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    measured = json.loads(result.stdout)
    assert measured["finite"] and measured["above"] < megabytes * 2**20, measured
