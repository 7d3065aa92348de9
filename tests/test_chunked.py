"""Chunks give the gradients of the whole batch."""

from collections import OrderedDict, UserDict
from typing import NamedTuple

import pytest
import torch

from mcfa_fast.chunked import in_chunks
from mcfa_fast.functional import contrastive_losses
from mcfa_fast.systems.mcfa import MCFA, MCFAConfig, MCFALoss


def test_contrastive_gradients_are_those_of_the_whole_batch():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(23, 6, generator=generator, dtype=torch.float64)
    semantic = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (23,), generator=generator)
    sizes = []

    def encode(chunk):
        sizes.append(len(chunk))
        return network(chunk)

    gradients = []
    for chunk_size in (None, 5, 23, 100, 1):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
        network.double()
        sizes.clear()
        latents = encode(rows) if chunk_size is None else in_chunks(encode, rows, chunk_size)
        sum(contrastive_losses(latents, semantic, labels, temperature=0.5)).backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
        assert max(sizes) <= (chunk_size or 23)
    for chunked in gradients[1:]:
        for ours, whole in zip(chunked, gradients[0], strict=True):
            torch.testing.assert_close(ours, whole, rtol=1e-10, atol=1e-10)


def test_dropout_is_the_same_when_a_chunk_is_computed_again():
    rows = torch.randn(9, 4, requires_grad=True)
    masks = []
    dropout = torch.nn.Dropout(0.5)

    def encode(chunk):
        masks.append((dropout(torch.ones_like(chunk)) > 0).float())
        return chunk * masks[-1]

    in_chunks(encode, rows, chunk_size=4).sum().backward()
    assert torch.equal(rows.grad, torch.cat(masks[:3]))
    assert torch.equal(rows.grad, torch.cat(masks[:2:-1])) and len(masks) == 6


@pytest.mark.parametrize("chunk_size", [1, 4, 50])
def test_model_and_objective_in_chunks(chunk_size):
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(14, 9, generator=generator, dtype=torch.float64)
    semantics = torch.rand(3, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (14,), generator=generator)
    results = []
    for size in (None, chunk_size):
        config = MCFAConfig.paper("zsl", chunk_size=size, latent_features=4)
        model = MCFA(9, 5, config).double()
        noise = torch.Generator().manual_seed(1)
        losses = MCFALoss(config)(model(features, semantics, labels, noise))
        results.append([*losses, *torch.autograd.grad(losses.total, list(model.parameters()))])
    for chunked, whole in zip(*results, strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-10, atol=1e-10)


class Encoded(NamedTuple):
    mean: torch.Tensor
    hidden: torch.Tensor | None


class Batch(UserDict):
    """A mapping that is no dict, as tokenizers return."""


@pytest.mark.parametrize("chunk_size", [1, 3, 10, 99])
@pytest.mark.parametrize("kind", [dict, Batch, tuple, list])
def test_inputs_of_several_tensors(kind, chunk_size):
    """A bag-of-words encoder of tokenised text."""
    table = torch.randn(50, 4, requires_grad=True)
    tokens, mask = torch.randint(0, 50, (10, 6)), torch.rand(10, 6)

    def encode(text):
        ids, weights = text.values() if isinstance(text, dict) else text
        return (table[ids] * weights[..., None]).sum(1).tanh()

    inputs = (tokens, mask)
    if kind is not tuple:
        inputs = list(inputs) if kind is list else kind({"ids": tokens, "mask": mask})
    encoded = in_chunks(encode, inputs, chunk_size)
    wanted = encode((tokens, mask))
    assert torch.equal(encoded, wanted)
    (ours,) = torch.autograd.grad(encoded.square().sum(), table)
    (whole,) = torch.autograd.grad(wanted.square().sum(), table)
    torch.testing.assert_close(ours, whole)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: {"a": x, "b": {"c": x + 1, "d": None}},
        lambda x: OrderedDict(a=x),
        lambda x: (x, [x + 1, x[:, 0]]),
        lambda x: Encoded(x, None),
        lambda x: Encoded(x, x * 2),
    ],
)
def test_outputs_keep_their_form(make):
    rows = torch.randn(7, 3, requires_grad=True)
    found, wanted = in_chunks(make, rows, 2), make(rows)
    assert type(found) is (dict if isinstance(wanted, dict) else type(wanted))
    torch.testing.assert_close(found, type(found)(wanted) if type(found) is dict else wanted)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ((torch.ones(4, 2), torch.ones(3, 2)), ValueError, r"as many rows each, got \[3, 4\]"),
        ({"a": torch.ones(4), "b": (torch.ones(3),)}, ValueError, r"each, got \[3, 4\]"),
        ("text", TypeError, "rows: expected a tensor, .* got str"),
        (torch.ones(2).numpy(), TypeError, "rows: expected a tensor, .* got ndarray"),
        ({}, ValueError, r"rows: expected tensors .* got \[\]"),
    ],
)
def test_rows_that_cannot_be_split(rows, error, message):
    with pytest.raises(error, match=message):
        in_chunks(lambda rows: rows, rows, 2)


def test_results_that_cannot_be_joined():
    with pytest.raises(TypeError, match="function: expected it to return a tensor, .* got float"):
        in_chunks(lambda rows: 1.0, torch.ones(4), 2)


def test_chunk_size_of_nothing():
    with pytest.raises(ValueError, match="chunk_size: expected 1 or more, got 0"):
        in_chunks(torch.relu, torch.rand(3, 2), 0)
