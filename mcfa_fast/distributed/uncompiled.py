"""The losses with a graph break around them: what ranks do together is left to Python.

Imported while ``torch.compile`` is at work, for the compiler takes seconds to load.
"""

from __future__ import annotations

import torch

from mcfa_fast.distributed import losses, pair_losses

contrastive = torch.compiler.disable(losses.contrastive)
info_nce = torch.compiler.disable(pair_losses.info_nce)
clip = torch.compiler.disable(pair_losses.clip)
nt_xent = torch.compiler.disable(pair_losses.nt_xent)
