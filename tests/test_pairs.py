"""Losses of pairs, references and the memory of past batches, against the float64 oracle."""

import io
import math

import pytest
import torch
from op_samples import Sample, largest_error, values_and_gradients

import mcfa_fast as mf
from mcfa_fast import functional, reference

F64 = torch.float64


def rows(count, width=6, seed=0):
    return torch.randn(count, width, dtype=F64, generator=torch.Generator().manual_seed(seed))


def classes(count, number=4, ignored=0.1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, number, (count,), generator=generator)
    values[torch.rand(count, generator=generator) < ignored] = -100
    return values


def assert_like_oracle(name, tensors, options, constant=(), tolerance=1e-11):
    sample = Sample(tensors, options, constant)
    ours, oracle = (
        values_and_gradients(getattr(module, name), sample) for module in (functional, reference)
    )
    assert largest_error(ours, oracle) <= tolerance


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("temperature", [0.02, 0.5])
def test_losses_of_pairs_match_the_oracle(temperature, reduction):
    tau = torch.tensor(temperature, dtype=F64)
    for count, forms in ((1, (True,)), (30, (True, False)), (300, (True, False))):
        pair = (rows(count), rows(count, seed=1))
        options = {"temperature": tau, "reduction": reduction}
        for normalize in forms:
            both = {**options, "normalize": normalize}
            assert_like_oracle("info_nce_loss", pair, both)
            assert_like_oracle("info_nce_loss", (*pair, rows(70, seed=2)), both)
            assert_like_oracle("info_nce_loss", (*pair, rows(0)), both, constant=(2,))
            assert_like_oracle("clip_loss", pair, {"temperature": tau, "normalize": normalize})
        assert_like_oracle("nt_xent_loss", pair, options)


def test_losses_of_no_pairs_are_zero():
    none = torch.empty(0, 4, requires_grad=True)
    for name in ("info_nce_loss", "clip_loss", "nt_xent_loss"):
        loss = getattr(functional, name)(none, none, temperature=0.5)
        loss.backward()
        assert loss == 0


def test_half_precision_latents_give_losses_in_float32():
    pair = (rows(50).bfloat16(), rows(50, seed=1).bfloat16(), rows(70, seed=2).bfloat16())
    loss = functional.info_nce_loss(*pair, temperature=0.5)
    want = reference.info_nce_loss(*(tensor.double() for tensor in pair), temperature=0.5)
    assert loss.dtype == torch.float32 and abs(loss - want) < 1e-2


@pytest.mark.parametrize("name", ["info_nce_loss", "clip_loss", "nt_xent_loss"])
def test_unequal_pairs_are_named(name):
    second = {"info_nce_loss": "keys", "clip_loss": "texts", "nt_xent_loss": "views_b"}[name]
    with pytest.raises(ValueError, match=rf"expected `{second}` to have the shape of .* \[3, 4\]"):
        getattr(functional, name)(torch.ones(3, 4), torch.ones(2, 4), temperature=0.5)
    with pytest.raises(ValueError, match=r"to have shape \[N, D\]"):
        getattr(functional, name)(torch.ones(3), torch.ones(3), temperature=0.5)
    if name != "clip_loss":
        with pytest.raises(ValueError, match="expected `reduction` to be .* but got 'average'"):
            getattr(functional, name)(
                torch.ones(3, 4), torch.ones(3, 4), temperature=0.5, reduction="average"
            )


@pytest.mark.parametrize("positives", ["out", "in"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_references_match_the_oracle(reduction, positives):
    tau = torch.tensor(0.3, dtype=F64)
    shared = {"temperature": tau, "reduction": reduction, "positives": positives}
    for number in (4, 60):  # nearly every anchor alone in its batch
        for count in (200, 1, 0):
            labels, further = classes(40, number), classes(count, number, seed=1)
            batch = (rows(40), labels)
            options = {**shared, "references": rows(count, seed=3), "reference_labels": further}

            def loss(module, visual, references, semantic=None, given=options, labels=labels):
                options = {**given, "references": references}
                if semantic is None:
                    return module.vtov_loss(visual, labels, **options)
                return module.contrastive_losses(visual, semantic, labels, **options)

            for tensors in ((batch[0], options["references"]),
                            (batch[0], options["references"], rows(number, seed=5))):  # fmt: skip
                sample = Sample(tensors)
                ours, oracle = (
                    values_and_gradients(lambda *t, m=module: loss(m, *t), sample)
                    for module in (functional, reference)
                )
                assert largest_error(ours, oracle) <= 1e-11


def test_references_come_with_labels():
    batch = (torch.ones(3, 4), torch.arange(3))
    with pytest.raises(ValueError, match="expected `reference_labels` beside `references`"):
        functional.vtov_loss(*batch, temperature=0.5, references=torch.ones(2, 4))
    with pytest.raises(ValueError, match="expected `references` beside `reference_labels`"):
        mf.VtoVLoss(0.5)(*batch, None, torch.arange(2))


def test_modules_are_their_functions():
    batch, further = (rows(20), classes(20)), (rows(30, seed=1), classes(30, seed=1))
    options = {"references": further[0], "reference_labels": further[1]}
    want = functional.vtov_loss(*batch, temperature=0.3, positives="in", **options)
    assert torch.equal(mf.VtoVLoss(0.3, positives="in")(*batch, *further), want)
    data = (batch[0], rows(4, seed=2), batch[1])
    want = functional.contrastive_losses(*data, temperature=0.3, **options)
    for got, expected in zip(mf.ContrastiveLosses(0.3)(*data, *further), want, strict=True):
        assert torch.equal(got, expected)
    assert repr(mf.InfoNCELoss()) == (
        "InfoNCELoss(temperature=0.07, reduction='mean', normalize=True)"
    )
    assert repr(mf.NTXentLoss(0.1)) == "NTXentLoss(temperature=0.1, reduction='mean')"


def test_the_learned_scale_of_two_towers_ends_at_a_hundred():
    loss = mf.CLIPLoss(0.07, learnable=True)
    pair = (rows(9).float(), rows(9, seed=1).float())
    value = loss(*pair)
    torch.testing.assert_close(value, mf.CLIPLoss(0.07)(*pair))
    value.backward()
    assert loss.log_scale.grad != 0 and repr(loss) == "CLIPLoss(temperature=0.07, normalize=True)"
    loss.log_scale.data.fill_(10.0)
    torch.testing.assert_close(loss(*pair), functional.clip_loss(*pair, temperature=0.01))
    assert torch.equal(torch.jit.script(loss)(*pair), loss(*pair))
    with pytest.raises(TypeError, match="`temperature` to be a number with `learnable`"):
        mf.CLIPLoss(torch.tensor(0.1), learnable=True)


class Queue:
    """What a cross-batch memory should hold, as plain lists."""

    def __init__(self, size):
        self.size, self.entries = size, []

    def loss(self, visual, labels, **options):
        # The batch pushes out what is too old before it meets the rest.
        self.entries = self.entries[max(0, len(self.entries) + len(visual) - self.size) :]
        references = [rows(0, visual.shape[1]), *(entry[None] for entry, _ in self.entries)]
        numbers = torch.tensor([label for _, label in self.entries], dtype=torch.int64)
        value = reference.vtov_loss(
            visual, labels, references=torch.cat(references), reference_labels=numbers, **options
        )
        self.entries += list(zip(visual.detach(), labels.tolist(), strict=True))
        self.entries = self.entries[-self.size :]
        return value


@pytest.mark.parametrize("positives", ["out", "in"])
def test_a_cross_batch_memory_is_a_queue(positives):
    memory = mf.CrossBatchMemory(25, 6, temperature=0.3, positives=positives).double()
    queue = Queue(25)
    for step, count in enumerate((8, 8, 8, 8, 30, 3)):
        visual, labels = rows(count, seed=step).requires_grad_(), classes(count, seed=step)
        want = queue.loss(visual, labels, temperature=0.3, positives=positives, reduction="mean")
        got = memory(visual, labels)
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)
        for gradient in zip(*(torch.autograd.grad(x, visual) for x in (got, want)), strict=True):
            torch.testing.assert_close(*gradient, rtol=1e-10, atol=1e-11)
    assert memory.filled == 25 and memory.position == (8 * 4 + 30 + 3) % 25


def test_a_cross_batch_memory_is_saved_scripted_and_read_in_evaluation():
    memory = mf.CrossBatchMemory(20, 6, temperature=0.3).double()
    memory(rows(8), classes(8))
    other = mf.CrossBatchMemory(20, 6, temperature=0.3).double()
    other.load_state_dict(memory.state_dict())
    scripted = torch.jit.script(other)
    file = io.BytesIO()
    torch.jit.save(scripted, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    batch = (rows(8, seed=1), classes(8, seed=1))
    assert torch.equal(memory(*batch), loaded(*batch))
    assert torch.equal(memory.embeddings, loaded.embeddings) and memory.filled == 16
    memory.eval()
    before = {name: value.clone() for name, value in memory.state_dict().items()}
    alone = memory(*batch)
    assert torch.equal(alone, memory(*batch)) and math.isfinite(alone)
    assert all(torch.equal(value, before[name]) for name, value in memory.state_dict().items())
    assert repr(memory).startswith("CrossBatchMemory(size=20, width=6, positives='out', ")


def test_a_memory_that_has_gone_on_cannot_be_differentiated():
    memory = mf.CrossBatchMemory(20, 6)
    batch = rows(8).float().requires_grad_()
    first = memory(batch, classes(8))
    memory(batch, classes(8))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        first.backward()


def test_a_memory_needs_a_size():
    with pytest.raises(ValueError, match="expected `size` >= 1"):
        mf.CrossBatchMemory(0, 6)
