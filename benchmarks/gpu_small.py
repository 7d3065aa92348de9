"""Every kernel on small shapes, for compute-sanitizer; with MCFA_FAST_HOPPER=on, Hopper's."""

import losses_only
import torch

functional, _ = losses_only.load()


def contrastive(instances: int, width: int, dtype: torch.dtype, temperature: float, positives: str):
    visual = torch.randn(instances, width, device="cuda", dtype=dtype, requires_grad=True)
    semantic = torch.randn(9, width, device="cuda", dtype=dtype, requires_grad=True)
    labels = torch.randint(0, 9, (instances,), device="cuda")
    labels[::7] = -100
    losses = functional.contrastive_losses(
        visual, semantic, labels, temperature=temperature, positives=positives
    )
    sum(losses).backward()
    return visual, semantic, labels


for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
    for width in (20, 128, 200, 264):
        for positives in ("out", "in"):
            for temperature in (0.2, 0.02):  # known and running maxima
                visual, semantic, labels = contrastive(300, width, dtype, temperature, positives)
        for targets in (labels.clamp(min=0), None):
            other = semantic if targets is not None else visual
            functional.wasserstein_alignment(
                visual, visual / 2, other, other / 3, targets
            ).backward()
            functional.l1_reconstruction(visual, other, targets).backward()
            functional.l1_reconstruction(visual.detach(), other, targets).backward()
            functional.l1_reconstruction(visual, other.detach(), targets).backward()
        for noise in (visual.detach(), visual.detach()[:, :1]):
            functional.reparameterize(visual, visual / 2, noise).sum().backward()
# Chunks right of the diagonal.
contrastive(4200, 264, torch.bfloat16, 0.2, "in")
torch.cuda.synchronize()
print("every kernel ran")
