"""The contenders: the library, and everything it is measured against, behind one interface."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from shapes import (
    LARGEST_QUADRATIC,
    TEMPERATURE,
    AlignmentBatch,
    ContrastiveBatch,
    PairBatch,
    ReconstructionBatch,
    SamplingBatch,
    Shape,
)
from torch import Tensor

from mcfa_fast import MCFAConfig, functional, reference
from mcfa_fast.systems.vae.model import VAEOutput

LIBRARY = "mcfa_fast"
PLAIN = "plain formula"
PLAIN_FUSED = "plain, fused Adam"
COMPILED = "torch.compile"
AUTHORS = "authors' way"
METRIC_LEARNING = "pytorch-metric-learning"
LIGHTLY = "lightly"
ONE_PROCESS = "one process"


@dataclass(frozen=True)
class Contender:
    """One way to compute a loss: a batch to a 0-dim tensor."""

    name: str
    compute: Callable[[Any], Tensor]
    oracle: Callable[[Any], Tensor]
    """What ``compute`` has to equal, to be called in float64."""
    needs: str | None = None
    """The module it needs."""
    compiles: bool = False
    """Whether the first call of each shape takes many seconds."""
    quadratic: bool = True
    """Whether it forms N×N matrices."""

    def reason_to_skip(self, shape: Shape, *, quick: bool) -> str | None:
        """Why it cannot run here, or None."""
        if self.quadratic and shape.n > LARGEST_QUADRATIC:
            return f"N×N matrices, too long and too large for N > {LARGEST_QUADRATIC:,}"
        if self.needs is not None and importlib.util.find_spec(self.needs) is None:
            return f"{self.needs} is not installed"
        if self.compiles and quick:
            return "compiling takes longer than a quick run"
        return None


def contrastive(name: str, loss: str = "fused", positives: str = "out") -> Contender:
    """The contender ``name`` for ``loss``: ``"vtov"``, ``"vtos"``, ``"stov"`` or ``"fused"``.

    The libraries compute VtoV's mean only and the authors' code the ``"in"`` form only, whatever
    is asked for.
    """
    oracle = _oracle(loss, positives)
    mean_vtov = _oracle("vtov", "out", "mean")
    if name == LIBRARY:
        compute = partial(_losses, functional, loss, positives)
        return Contender(name, compute, oracle, quadratic=False)
    if name == PLAIN:
        return Contender(name, oracle, oracle)
    if name == COMPILED:
        # Without this, a process that has compiled a few shapes stops compiling for each.
        torch.compiler.reset()
        compiled = torch.compile(oracle, dynamic=False, fullgraph=True)
        return Contender(name, compiled, oracle, compiles=True)
    if name == AUTHORS:
        return Contender(name, _authors, _balanced_oracle)
    if name == METRIC_LEARNING:
        return Contender(name, _metric_learning, mean_vtov, needs="pytorch_metric_learning")
    if name == LIGHTLY:
        return Contender(name, _lightly, mean_vtov, needs="lightly")
    raise ValueError(f"name: unknown contender {name!r}")


def pairs(name: str, loss: str) -> Contender:
    """The contender ``name`` for the loss of ``"towers"`` or of a ``"bank"``."""
    of_module = _towers if loss == "towers" else _bank
    oracle = partial(of_module, reference)
    if name == LIBRARY:
        return Contender(name, partial(of_module, functional), oracle, quadratic=False)
    if name == COMPILED:
        torch.compiler.reset()
        compiled = torch.compile(oracle, dynamic=False, fullgraph=True)
        return Contender(name, compiled, oracle, compiles=True)
    if name == METRIC_LEARNING:
        return Contender(name, _cross_batch_memory, oracle, needs="pytorch_metric_learning")
    return Contender(name, oracle, oracle)


def alignment(name: str) -> Contender:
    """Wasserstein alignment plus KL divergence: ``LIBRARY`` or ``PLAIN``."""
    module = {LIBRARY: functional, PLAIN: reference}[name]
    oracle = partial(_alignment, reference)
    return Contender(name, partial(_alignment, module), oracle, quadratic=False)


def reconstruction(name: str) -> Contender:
    """The L1 distance of instances from their own and their classes' reconstructions."""
    module = {LIBRARY: functional, PLAIN: reference}[name]
    oracle = partial(_reconstruction, reference)
    return Contender(name, partial(_reconstruction, module), oracle, quadratic=False)


def sampling(name: str) -> Contender:
    """Latents sampled from given noise, times that noise, so that there is a loss."""
    module = {LIBRARY: functional, PLAIN: reference}[name]
    oracle = partial(_sampling, reference)
    return Contender(name, partial(_sampling, module), oracle, quadratic=False)


def plain_objective(config: MCFAConfig, output: VAEOutput) -> Tensor:
    """The total of :class:`mcfa_fast.MCFALoss`, its equations written plainly.

    For batches with instances of every row of ``semantics``.
    """
    labels = output.labels
    counts = torch.bincount(labels).to(output.features.dtype)
    if config.class_weighting == "rows":
        counts = torch.ones_like(counts)
    descriptors = (output.semantic_reconstruction - output.semantics).abs().sum(1)
    reconstruction = (output.visual_reconstruction - output.features).abs().sum()
    reconstruction = reconstruction + (counts * descriptors).sum()
    kl = reference.kl_divergence(output.visual_mean, output.visual_logvar)
    class_kl = reference.kl_divergence(
        output.semantic_mean, output.semantic_logvar, reduction="none"
    )
    kl = kl + (counts * class_kl).sum()
    cross = (output.visual_from_semantic[labels] - output.features).abs().sum()
    cross = cross + (output.semantic_from_visual - output.semantics[labels]).abs().sum()
    aligned = reference.wasserstein_alignment(
        output.visual_mean,
        output.visual_logvar,
        output.semantic_mean[labels],
        output.semantic_logvar[labels],
    )
    vtov, vtos, stov = reference.contrastive_losses(
        output.visual_latents,
        output.semantic_latents,
        labels,
        temperature=config.temperature,
        positives=config.positives,
    )
    return (
        reconstruction
        + config.kl_weight * kl
        + config.cross_reconstruction_weight * cross
        + config.alignment_weight * aligned
        + config.vtov_weight * vtov
        + config.vtos_weight * vtos
        + config.stov_weight * stov
    )


def _losses(
    module: Any, loss: str, positives: str, batch: ContrastiveBatch, reduction: str = "sum"
) -> Tensor:
    """The loss, or the sum of the three, with the functions of ``module``."""
    visual, semantic, labels = batch
    options: dict[str, Any] = {"temperature": TEMPERATURE, "reduction": reduction}
    if loss == "vtos":
        return module.vtos_loss(visual, semantic, labels, **options)
    options["positives"] = positives
    if loss == "vtov":
        return module.vtov_loss(visual, labels, **options)
    if loss == "stov":
        return module.stov_loss(visual, semantic, labels, **options)
    vtov, vtos, stov = module.contrastive_losses(visual, semantic, labels, **options)
    return vtov + vtos + stov


@cache
def _oracle(loss: str, positives: str, reduction: str = "sum") -> Callable[..., Tensor]:
    """The plain formula; the same object for the same arguments."""
    return partial(_losses, reference, loss, positives, reduction=reduction)


def _balanced(batch: ContrastiveBatch) -> ContrastiveBatch:
    """The first rows, as many of each class: the authors' code needs equal class counts."""
    visual, semantic, labels = batch
    rows = len(labels) - len(labels) % len(semantic)
    return ContrastiveBatch(visual[:rows], semantic, labels[:rows])


def _balanced_oracle(batch: ContrastiveBatch) -> Tensor:
    return _losses(reference, "fused", "in", _balanced(batch))


def _authors(batch: ContrastiveBatch) -> Tensor:
    return sum(authors_contrastive(*_balanced(batch), TEMPERATURE))


def authors_contrastive(
    visual: Tensor, semantic: Tensor, labels: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The three losses as the authors compute them, of as many instances of each class.

    Exponentials of full similarity matrices, boolean masks of their shape, the entries picked with
    ``masked_select`` and shaped back into rows, and the positives' mean inside the logarithm.
    """
    visual, semantic = F.normalize(visual, dim=1), F.normalize(semantic, dim=1)

    similarity = torch.exp(visual @ visual.T / temperature)
    itself = torch.eye(len(labels), dtype=torch.bool)
    positive = (labels[:, None] == labels[None, :]) & ~itself
    positives = torch.masked_select(similarity, positive).view(len(labels), -1)
    others = torch.masked_select(similarity, ~itself).view(len(labels), -1)
    vtov = -torch.log(positives.mean(dim=1) / others.sum(dim=1)).sum()

    similarity = torch.exp(visual @ semantic.T / temperature)
    own = labels[:, None] == torch.arange(len(semantic))[None, :]
    descriptors = torch.masked_select(similarity, own)
    vtos = -torch.log(descriptors / similarity.sum(dim=1)).sum()
    instances = torch.masked_select(similarity.T, own.T).view(len(semantic), -1)
    stov = -torch.log(instances.mean(dim=1) / similarity.sum(dim=0)).sum()
    return vtov, vtos, stov


def _metric_learning(batch: ContrastiveBatch) -> Tensor:
    from pytorch_metric_learning.losses import SupConLoss

    return SupConLoss(temperature=TEMPERATURE)(batch.visual, batch.labels)


def _towers(module: Any, batch: PairBatch) -> Tensor:
    return module.clip_loss(batch.anchors, batch.keys, temperature=TEMPERATURE)


def _bank(module: Any, batch: PairBatch) -> Tensor:
    """VtoV's mean against a memory that has the batch in its first places."""
    itself = torch.arange(len(batch.anchors))
    sums = module.anchor_key(*batch, itself, temperature=TEMPERATURE)
    return (sums.log_sum_exp - sums.positives / sums.counts).mean()


def _cross_batch_memory(batch: PairBatch) -> Tensor:
    """The same; the batch enters the memory's first places."""
    from pytorch_metric_learning.losses import CrossBatchMemory, SupConLoss

    size, width = batch.keys.shape
    memory = CrossBatchMemory(SupConLoss(temperature=TEMPERATURE), width, memory_size=size)
    memory.embedding_memory, memory.label_memory = batch.keys, batch.key_labels
    memory.has_been_filled = True
    return memory(batch.anchors, batch.labels)


def _lightly(batch: ContrastiveBatch) -> Tensor:
    """NT-Xent, which is VtoV's mean where every class has two instances, one in each half."""
    first, second = batch.visual.chunk(2)
    return _ntxent()(temperature=TEMPERATURE)(first, second)


@cache
def _ntxent() -> type:
    # Its package imports torchvision, which has no build for every build of PyTorch; the loss does
    # without it.
    names = ("torchvision", "torchvision.ops", "torchvision.models", "torchvision.transforms")
    with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in names}):
        from lightly.loss.ntx_ent_loss import NTXentLoss
    return NTXentLoss


def _alignment(module: Any, batch: AlignmentBatch) -> Tensor:
    """Both terms, with the functions of ``module``."""
    divergence = module.kl_divergence(batch.mean_a, batch.logvar_a)
    return module.wasserstein_alignment(*batch) + divergence


def _reconstruction(module: Any, batch: ReconstructionBatch) -> Tensor:
    """Both distances, with the function of ``module``."""
    own = module.l1_reconstruction(batch.decoded, batch.features)
    return own + module.l1_reconstruction(batch.features, batch.table, batch.labels)


def _sampling(module: Any, batch: SamplingBatch) -> Tensor:
    """The samples, with the function of ``module``; the rest is the same for all."""
    samples = module.reparameterize(batch.mean, batch.logvar, batch.noise)
    return torch.dot(samples.view(-1), batch.noise.view(-1))
