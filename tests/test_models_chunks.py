"""Chunks give the gradients of the whole batch."""

import pytest
import torch

from mcfa_fast.systems.mcfa.config import MCFAConfig
from mcfa_fast.functional import contrastive_losses
from mcfa_fast.models import MCFA, MCFALoss, in_chunks


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
        config = MCFAConfig(chunk_size=size, latent_features=4)
        model = MCFA(9, 5, config).double()
        noise = torch.Generator().manual_seed(1)
        losses = MCFALoss(config)(model(features, semantics, labels, noise))
        results.append([*losses, *torch.autograd.grad(losses.total, list(model.parameters()))])
    for chunked, whole in zip(*results, strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-10, atol=1e-10)


def test_chunk_size_of_nothing():
    with pytest.raises(ValueError, match="chunk_size: expected 1 or more, got 0"):
        in_chunks(torch.relu, torch.rand(3, 2), 0)
