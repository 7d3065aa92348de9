"""The losses with a graph break around them: what ranks do together is left to Python.

Imported while ``torch.compile`` is at work, for the compiler takes seconds to load.
"""

from __future__ import annotations

import torch

from mcfa_fast.distributed import losses

contrastive = torch.compiler.disable(losses.contrastive)
