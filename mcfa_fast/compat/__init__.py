"""Drop-in replacements for losses that people already have in their code.

Each module is named after the library it stands in for, and its classes after that library's:
changing the import is all it takes. Values and gradients are the original's, in memory that is
linear in the batch; every class says where they differ.

=========================  ====================================================================
``mcfa``                   ``Inter_Mode_Loss`` and ``Cross_Mode_Loss`` of the MCFA authors' code
``supcontrast``            ``SupConLoss``, the widely copied one of Khosla et al.
``open_clip``              ``ClipLoss``
``lightly``                ``NTXentLoss``
``pytorch_metric_learning``  ``SupConLoss``, ``NTXentLoss`` and ``CrossBatchMemory``
``sentence_transformers``  ``MultipleNegativesRankingLoss`` and its cached form
=========================  ====================================================================

The last two extend the classes of their library and need it; the others need PyTorch alone. Those
of the first two are here by their names, too.
"""

from mcfa_fast.compat.mcfa import Cross_Mode_Loss, Inter_Mode_Loss
from mcfa_fast.compat.supcontrast import SupConLoss

__all__ = ["Cross_Mode_Loss", "Inter_Mode_Loss", "SupConLoss"]
