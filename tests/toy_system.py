"""A system in one file: descriptors are mapped to features, which are compared by their cosine."""

from copy import deepcopy

import torch
from torch.nn import functional as F

from mcfa_fast.systems.base import System, TrainableConfig
from mcfa_fast.systems.batches import BatchTraining
from mcfa_fast.systems.layers import UnitRows, affine
from mcfa_fast.systems.registry import Entry, register
from mcfa_fast.systems.scaling import UnitScaler
from mcfa_fast.systems.vae.networks import xavier_linear


class ToyTraining(BatchTraining):
    def __init__(self, system, data, resident):
        config, net = system.config, system.net
        where = {"scaler": net["x"], "semantic_scaler": net["s"], "device": system.device}
        super().__init__(config, data, net, **where, resident=resident)
        self.adam = torch.optim.Adam(net.parameters(), lr=config.training.learning_rate)
        self.optimizers = (self.adam,)

    def step(self, batch, update):
        features, semantics, labels = batch.inputs
        loss = (features - self.module["map"](semantics)[labels]).square().sum()
        self.adam.zero_grad()
        loss.backward()
        update.apply(self.adam)
        return loss.detach()[None]


class Toy(System):
    name = "toy_system:toy"
    Config = TrainableConfig

    def __init__(self, config, visual_features, semantic_features, *, device="cpu"):
        super().__init__(config, visual_features, semantic_features, device=device)
        mapping = xavier_linear(semantic_features, visual_features, config.generator("weights"))
        scalers = {"x": UnitScaler(visual_features), "s": UnitScaler(semantic_features)}
        self.net = torch.nn.ModuleDict({**scalers, "map": mapping})

    def trainable(self, data, *, resident=None):
        return ToyTraining(self, data, resident)

    @torch.no_grad()
    def scorer(self, semantics):
        net = deepcopy(self.net).cpu()
        classes = F.normalize(net["map"](net["s"](semantics)), dim=1)
        return torch.nn.Sequential(net["x"], UnitRows(), affine(classes.numpy().T))

    def scores(self, features, semantics):
        return self.scorer(semantics)(features.cpu())

    def state_dict(self):
        return self.net.state_dict()

    def load_state_dict(self, state):
        self.net.load_state_dict(state)


register(Entry(Toy, ("scores",), "toys", grid={"epochs": (2, 4)}, shortens=True))
