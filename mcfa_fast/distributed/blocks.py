"""The two passes of the operator over one block of anchors and keys."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mcfa_fast import reference


def block_sums(
    anchors,
    keys,
    anchor_labels,
    key_labels,
    temperature,
    key_side,
    positives,
    normalize,
    ignore_index,
):
    with torch.no_grad():
        return reference.anchor_key(
            anchors,
            keys,
            anchor_labels,
            key_labels,
            None,
            temperature,
            key_side,
            positives,
            normalize,
            ignore_index,
        )


def block_gradients(
    anchors,
    keys,
    anchor_labels,
    key_labels,
    temperature,
    terms,
    key_terms,
    wanted,
    positives,
    normalize,
    ignore_index,
):
    a = anchors.detach().requires_grad_()
    k = None if keys is None else keys.detach().requires_grad_()
    t = temperature.detach().requires_grad_()
    with torch.enable_grad():
        sums = reference.anchor_key(
            a,
            k,
            anchor_labels,
            key_labels,
            None,
            t,
            key_terms is not None,
            positives,
            normalize,
            ignore_index,
        )
        total = 0
        for (lse, pos), tt in (((sums[0], sums[1]), terms), ((sums[3], sums[4]), key_terms)):
            if tt is None:
                continue
            g, gp, glse, gpos = tt.unbind(1)
            w = torch.where(lse.isfinite(), g * (lse.detach() - glse).exp(), 0)
            total = total + (torch.where(lse.isfinite(), lse, 0) * w).sum()
            if positives == "in":
                w = torch.where(pos.isfinite(), gp * (pos.detach() - gpos).exp(), 0)
            else:
                w = gp
            total = total + (torch.where(pos.isfinite(), pos, 0) * w).sum()
    ins = [a, t] if k is None else [a, t, k]
    g = torch.autograd.grad(total, ins, materialize_grads=True)
    return g[0] if wanted[0] else None, g[2] if k is not None and wanted[1] else None, g[1]
