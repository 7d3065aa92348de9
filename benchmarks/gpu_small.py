"""Every kernel once on small shapes, for compute-sanitizer."""

import losses_only
import torch

functional, _ = losses_only.load()

for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
    for width in (20, 128, 200, 264):
        for positives in ("out", "in"):
            visual = torch.randn(300, width, device="cuda", dtype=dtype, requires_grad=True)
            semantic = torch.randn(9, width, device="cuda", dtype=dtype, requires_grad=True)
            labels = torch.randint(0, 9, (300,), device="cuda")
            labels[::7] = -100
            losses = functional.contrastive_losses(
                visual, semantic, labels, temperature=0.2, positives=positives
            )
            sum(losses).backward()
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
torch.cuda.synchronize()
print("every kernel ran")
