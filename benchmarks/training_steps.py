"""The contenders of the training benchmark: the library, clean plain PyTorch, the authors' way."""

from __future__ import annotations

import random

import numpy as np
import peers
import torch
from torch import Tensor

import mcfa_fast as mf
from mcfa_fast.data.features import FeatureRows
from mcfa_fast.data.inputs import TrainingData
from mcfa_fast.systems.batches import StepInput
from mcfa_fast.systems.mcfa.objective import weights_of
from mcfa_fast.systems.mcfa.system import MCFASystem
from mcfa_fast.systems.vae.model import VAEOutput
from mcfa_fast.systems.vae.step import Contrasts, NativeStep
from mcfa_fast.training.loop import History, train
from mcfa_fast.training.optimizer import FusedAdam
from mcfa_fast.training.sampler import Batch, BatchSampler, EpisodicSampler, make_sampler
from mcfa_fast.training.update import Update


class Data:
    """Scaled features, labels and descriptors of the training set, and the options."""

    def __init__(self, config: mf.MCFAConfig, data: mf.data.Dataset) -> None:
        self.config = config
        self.dataset = data
        self.raw = torch.from_numpy(data.features)
        self.labels = torch.from_numpy(data.labels)
        self.semantics = torch.from_numpy(data.semantics)
        self.features = self.model().scaler(self.raw)

    def model(self) -> mf.MCFA:
        """A model with its initial weights."""
        model = mf.MCFA(self.raw.shape[1], self.semantics.shape[1], self.config)
        model.scaler.fit(self.raw)
        return model

    def first_batch(self) -> Batch:
        """The batch that values and gradients are compared on."""
        return next(iter(self.sampler(self.config.generator("sampler"))))

    def sampler(self, generator: torch.Generator) -> EpisodicSampler | BatchSampler:
        """The batches of the training."""
        return make_sampler(self.config.training, self.labels, generator)


class Library:
    """An epoch of the library's training loop."""

    name = peers.LIBRARY

    def __init__(self, data: Data) -> None:
        system = MCFASystem(data.config, data.raw.shape[1], data.semantics.shape[1])
        self._trainable = system.trainable(
            TrainingData(
                features=FeatureRows.of(data.dataset.features),
                labels=data.dataset.labels,
                semantics=data.semantics,
                unseen_classes=np.array([], dtype=np.int64),
                class_names=data.dataset.class_names,
            )
        )
        self._history: History = []

    def epoch(self) -> None:
        done = len(self._history)
        self._history = train(self._trainable, epochs=done + 1, history=self._history)


class Plain:
    """Clean PyTorch: vectorised episodes, class rows decoded once, autograd, PyTorch's Adam."""

    name = peers.PLAIN

    def __init__(self, data: Data) -> None:
        self._data = data
        self._model = data.model()
        self._optimizer = self._adam()
        self._sampler = data.sampler(data.config.generator("sampler"))
        self._noise = data.config.generator("noise")

    def _adam(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            self._model.parameters(), lr=self._data.config.training.learning_rate, amsgrad=True
        )

    def epoch(self) -> None:
        data = self._data
        for batch in self._sampler:
            loss = plain_loss(
                self._model,
                data.features[batch.rows],
                data.semantics[batch.classes],
                batch.labels,
                self._noise,
            )
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()


class PlainFused(Plain):
    """The same with ``torch.optim.Adam(fused=True)``."""

    name = peers.PLAIN_FUSED

    def _adam(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            self._model.parameters(),
            lr=self._data.config.training.learning_rate,
            amsgrad=True,
            fused=True,
        )


class Authors:
    """As the authors' code goes about it: episodes as Python lists, one row per instance on both
    sides of every decoder, masked selections, and seven numbers read back after every step."""

    name = peers.AUTHORS

    def __init__(self, data: Data) -> None:
        self._data = data
        self._model = data.model()
        self._optimizer = torch.optim.Adam(
            self._model.parameters(), lr=data.config.training.learning_rate, amsgrad=True
        )
        self._noise = data.config.generator("noise")
        self._random = random.Random(0)
        self._rows: dict[int, list[int]] = {}
        for row, label in enumerate(data.labels.tolist()):
            self._rows.setdefault(label, []).append(row)

    def epoch(self) -> None:
        data, config = self._data, self._data.config.training
        for _ in range(len(data.sampler(torch.Generator()))):
            classes = self._random.sample(sorted(self._rows), config.classes_per_batch)
            smallest = min(len(rows) for rows in self._rows.values())
            offsets = self._random.sample(range(smallest), config.instances_per_class)
            rows, labels = [], []
            for local, number in enumerate(classes):
                for offset in offsets:
                    rows.append(self._rows[number][offset])
                    labels.append(local)
            losses = authors_losses(
                self._model,
                data.features[rows],
                data.semantics[classes],
                torch.tensor(labels),
                self._noise,
            )
            self._optimizer.zero_grad()
            losses[0].backward()
            self._optimizer.step()
            _ = [loss.item() for loss in losses[1:]]


def plain_loss(
    model: mf.MCFA, features: Tensor, semantics: Tensor, labels: Tensor, noise: torch.Generator
) -> Tensor:
    """The total of one batch by the equations, in PyTorch's own operations."""
    return peers.plain_objective(
        model.config, plain_output(model, features, semantics, labels, noise)
    )


def plain_output(
    model: mf.MCFA, features: Tensor, semantics: Tensor, labels: Tensor, noise: torch.Generator
) -> VAEOutput:
    """What :class:`mcfa_fast.MCFA` computes, in PyTorch's own operations."""
    visual_mean, visual_logvar = model.visual.encode(features)
    semantic_mean, semantic_logvar = model.semantic.encode(semantics)
    visual = _sample(model, visual_mean, visual_logvar, noise)
    semantic = _sample(model, semantic_mean, semantic_logvar, noise)
    return VAEOutput(
        features=features,
        semantics=semantics,
        labels=labels,
        visual_mean=visual_mean,
        visual_logvar=visual_logvar,
        visual_latents=visual,
        semantic_mean=semantic_mean,
        semantic_logvar=semantic_logvar,
        semantic_latents=semantic,
        visual_reconstruction=model.visual.decode(visual),
        semantic_reconstruction=model.semantic.decode(semantic),
        visual_from_semantic=model.visual.decode(semantic),
        semantic_from_visual=model.semantic.decode(visual),
    )


def _sample(model: mf.MCFA, mean: Tensor, logvar: Tensor, noise: torch.Generator) -> Tensor:
    shape = (len(mean), 1) if model.noise_per_row else mean.shape
    drawn = torch.randn(shape, generator=noise, dtype=mean.dtype, device=mean.device)
    return mean + torch.exp(model.scale_power * logvar) * drawn


def authors_losses(
    model: mf.MCFA, features: Tensor, semantics: Tensor, labels: Tensor, noise: torch.Generator
) -> list[Tensor]:
    """The total and its seven terms: class rows repeated before, not after, the decoders."""
    config = model.config
    visual_mean, visual_logvar = model.visual.encode(features)
    semantic_mean, semantic_logvar = model.semantic.encode(semantics)
    visual = _sample(model, visual_mean, visual_logvar, noise)
    semantic = _sample(model, semantic_mean, semantic_logvar, noise)
    repeated, targets = semantic[labels], semantics[labels]
    reconstruction = (model.visual.decode(visual) - features).abs().sum()
    reconstruction = reconstruction + (model.semantic.decode(semantic) - semantics).abs().sum()
    cross = (model.visual.decode(repeated) - features).abs().sum()
    cross = cross + (model.semantic.decode(visual) - targets).abs().sum()
    kl = 0.0
    for mean, logvar in ((visual_mean, visual_logvar), (semantic_mean, semantic_logvar)):
        kl = kl - 0.5 * (1 + logvar - mean.pow(2) - logvar.exp()).sum()
    means = (visual_mean - semantic_mean[labels]).pow(2).sum(1)
    scales = (torch.exp(visual_logvar / 2) - torch.exp(semantic_logvar / 2)[labels]).pow(2).sum(1)
    alignment = torch.sqrt(means + scales).sum()
    vtov, vtos, stov = peers.authors_contrastive(visual, semantic, labels, config.temperature)
    weights = weights_of(config)
    total = (
        reconstruction
        + weights.kl * kl
        + weights.cross_reconstruction * cross
        + weights.alignment * alignment
        + weights.vtov * vtov
        + weights.vtos * vtos
        + weights.stov * stov
    )
    return [total, reconstruction, kl, cross, alignment, vtov, vtos, stov]


def oracle(data: Data) -> list[Tensor]:
    """Total and gradients of the first batch in float64, from the initial weights."""
    return _evaluate(data, lambda *batch: plain_loss(*batch))


def authors_values(data: Data) -> list[Tensor]:
    """The same the authors' way."""
    return _evaluate(data, lambda *batch: authors_losses(*batch)[0])


def _evaluate(data: Data, loss) -> list[Tensor]:
    model, batch = data.model().double(), data.first_batch()
    total = loss(
        model,
        data.features[batch.rows].double(),
        data.semantics[batch.classes].double(),
        batch.labels,
        data.config.generator("noise"),
    )
    return [total.detach(), *torch.autograd.grad(total, list(model.parameters()))]


class _GradientsOnly(Update):
    """Leaves the weights as they are."""

    def apply(self, optimizer: torch.optim.Optimizer) -> None:
        pass


def library_values(data: Data) -> list[Tensor]:
    """The same by the library's step, in float64: noise drawn in float32 would differ."""
    model, batch = data.model().double(), data.first_batch()
    parameters = list(model.parameters())
    config = data.config
    step = NativeStep(
        model,
        Contrasts(config.temperature, config.positives),
        FusedAdam(parameters, config.training.learning_rate),
        config.generator("noise"),
        terms=1,
    )
    inputs = StepInput(
        data.features[batch.rows].double(), data.semantics[batch.classes].double(), batch.labels
    )
    losses = step(inputs, weights_of(config), _GradientsOnly())
    return [losses[0], *(parameter.grad for parameter in parameters)]
