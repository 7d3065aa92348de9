"""The losses and the sampling as functions, each the twin of one of :mod:`mcfa_fast.reference`.

Shapes: ``visual [N, D]`` latents of instances, ``semantic [C, D]`` latents of class descriptors,
``labels [N]`` classes in ``0..C-1``. All of them run in memory linear in N + C: no N×N or N×C
matrix is ever formed, neither forward nor backward. They accept float32, float64, float16 and
bfloat16 and return float32 (float64 for float64), accumulate in at least that precision, and give
bitwise the same result when called again with the same input on the same machine. They work under
``torch.compile(fullgraph=True)``, ``torch.export`` and autocast; :mod:`mcfa_fast.losses` has them
as modules, which ``torch.jit.script`` compiles too. Second derivatives raise NotImplementedError.

On a GPU they never wait for it, so that they can be captured into a CUDA graph. There, a label
outside ``0..C-1`` stops with a device-side assertion, and a ``temperature`` on the GPU that is not
positive and finite gives NaN. A learnable temperature belongs on the GPU; the gradient of one on
the CPU has to be fetched.

Source of the equations: Liu et al., "Multi-level Cross-modal Feature Alignment via Contrastive
Learning towards Zero-shot Classification of Remote Sensing Image Scenes" (MCFA), 2023.
"""

from __future__ import annotations

from mcfa_fast.functional.contrastive import (
    contrastive_losses,
    stov_loss,
    vtos_loss,
    vtov_loss,
)
from mcfa_fast.functional.gaussians import (
    kl_divergence,
    l1_reconstruction,
    reparameterize,
    wasserstein_alignment,
)
from mcfa_fast.functional.pairs import clip_loss, info_nce_loss, nt_xent_loss
from mcfa_fast.ops import AnchorKeySums, ContrastiveLossValues, anchor_key

__all__ = [
    "AnchorKeySums",
    "ContrastiveLossValues",
    "anchor_key",
    "clip_loss",
    "contrastive_losses",
    "info_nce_loss",
    "kl_divergence",
    "l1_reconstruction",
    "nt_xent_loss",
    "reparameterize",
    "stov_loss",
    "vtos_loss",
    "vtov_loss",
    "wasserstein_alignment",
]
