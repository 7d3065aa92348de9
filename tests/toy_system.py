"""A system in one file: descriptors are mapped to features, which are compared by their cosine."""

from copy import deepcopy

import torch
from torch.nn.functional import normalize

from mcfa_fast.systems.base import System, TrainableConfig
from mcfa_fast.systems.batches import BatchTraining
from mcfa_fast.systems.layers import UnitRows, affine
from mcfa_fast.systems.registry import Entry, register
from mcfa_fast.systems.scaling import UnitScaler
from mcfa_fast.systems.vae.networks import xavier_linear


class ToyTraining(BatchTraining):
    def __init__(self, system, data, resident):
        scalers = {"scaler": system.net["x"], "semantic_scaler": system.net["s"]}
        super().__init__(system, data, system.net, **scalers, resident=resident)
        self.optimizers = (torch.optim.Adam(system.net.parameters(), lr=self.learning_rate),)

    def step(self, batch, update):
        features, semantics, labels = batch.inputs
        loss = (features - self.module["map"](semantics)[labels]).square().sum()
        self.module.zero_grad()
        loss.backward()
        update.apply(self.optimizers[0])
        return loss.detach()[None]


class Toy(System):
    name = "toy_system:toy"
    Config = TrainableConfig

    def __init__(self, config, visual, semantic, *, device="cpu"):
        super().__init__(config, visual, semantic, device=device)
        self.net = torch.nn.ModuleDict({"x": UnitScaler(visual), "s": UnitScaler(semantic)})
        self.net["map"] = xavier_linear(semantic, visual, config.generator("weights"))

    def trainable(self, data, *, resident=None):
        return ToyTraining(self, data, resident)

    @torch.no_grad()
    def scorer(self, semantics):
        net = deepcopy(self.net).cpu()
        classes = normalize(net["map"](net["s"](semantics)), dim=1)
        return torch.nn.Sequential(net["x"], UnitRows(), affine(classes.numpy().T))

    def scores(self, features, semantics):
        return self.scorer(semantics)(features.cpu())

    def state_dict(self):
        return self.net.state_dict()

    def load_state_dict(self, state):
        self.net.load_state_dict(state)


register(Entry(Toy, ("scores",), "toys", grid={"epochs": (2, 4)}, shortens=True))
