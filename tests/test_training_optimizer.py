"""The optimizer is PyTorch's, in its arithmetic and its state."""

import copy

import torch

from mcfa_fast.training.optimizer import FusedAdam


def test_fused_adam_is_pytorchs():
    generator = torch.Generator().manual_seed(0)
    ours = [torch.randn(shape, generator=generator) for shape in ((5, 3), (4,))]
    ours = [parameter.requires_grad_() for parameter in ours]
    theirs = [parameter.detach().clone().requires_grad_() for parameter in ours]
    optimizer = FusedAdam(ours, learning_rate=0.01)
    expected = torch.optim.Adam(theirs, lr=0.01, amsgrad=True, fused=True)
    for number in range(6):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        optimizer.step()
        expected.step()
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)
        if number == 2:  # either reads the other's state
            states = copy.deepcopy((optimizer.state_dict(), expected.state_dict()))
            expected.load_state_dict(states[0])
            optimizer.load_state_dict(states[1])


def test_parameters_without_gradient_are_left_alone():
    used, unused = (torch.ones(2, requires_grad=True) for _ in range(2))
    optimizer = FusedAdam([used, unused], learning_rate=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        used.square().sum().backward()
        optimizer.step()
    assert (used < 1).all() and torch.equal(unused, torch.ones(2))
    assert unused not in optimizer.state
