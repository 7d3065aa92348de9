"""Both passes of the operator over one block of anchors and keys.

Backward is called by itself, for the gradient of a pair depends on its similarity and on what is
known of its two rows as a whole: the log-sum-exps over the keys of *all* ranks, and the gradients
of these. So a block's own sums need not be kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mcfa_fast.ops import AnchorKeySums


def block_sums(
    anchors: Tensor,
    keys: Tensor | None,
    anchor_labels: Tensor,
    key_labels: Tensor | None,
    temperature: Tensor,
    key_side: bool,
    positives: str,
    normalize: bool,
    ignore_index: int,
) -> AnchorKeySums:
    """:func:`mcfa_fast.ops.anchor_key` of a block, without a graph."""
    return AnchorKeySums(
        *torch.ops.mcfa_fast.anchor_key_forward(
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
    )


def block_gradients(
    anchors: Tensor,
    keys: Tensor | None,
    anchor_labels: Tensor,
    key_labels: Tensor | None,
    temperature: Tensor,
    terms: Tensor,
    key_terms: Tensor | None,
    wanted: Sequence[bool],
    positives: str,
    normalize: bool,
    ignore_index: int,
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """What a block contributes to the gradients of its anchors, its keys and the temperature.

    Args:
        anchors: [N, D].
        keys: [M, D]; None where anchors are their own keys.
        anchor_labels: [N].
        key_labels: [M].
        temperature: 0-dim.
        terms: [N, 4] of each anchor: the gradients of its log-sum-exp and of its positives' sum,
            and the two themselves.
        key_terms: [M, 4], the same of the keys; None where a loss takes no sums of keys.
        wanted: Whether the gradients of anchors and of keys are wanted.
        positives: ``"out"`` or ``"in"``.
        normalize: As in forward.
        ignore_index: As in forward.
    """
    nothing = (None, None, None, None)
    grad_sum, grad_positives, log_sum_exp, of_positives = terms.T.contiguous().unbind()
    grad_key_sum, grad_key_positives, key_log_sum_exp, of_key_positives = (
        nothing if key_terms is None else key_terms.T.contiguous().unbind()
    )
    grad_anchors, grad_keys, grad_temperature = torch.ops.mcfa_fast.anchor_key_backward(
        grad_sum,
        grad_positives,
        grad_key_sum,
        grad_key_positives,
        anchors,
        keys,
        anchor_labels,
        key_labels,
        None,
        temperature,
        log_sum_exp,
        of_positives,
        key_log_sum_exp,
        of_key_positives,
        positives,
        normalize,
        ignore_index,
        [wanted[0], wanted[1] and keys is not None],
    )
    return (
        grad_anchors if wanted[0] else None,
        grad_keys if wanted[1] and keys is not None else None,
        grad_temperature,
    )
