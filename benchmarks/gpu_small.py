"""Every kernel on small shapes, for compute-sanitizer; with MCFA_FAST_HOPPER=on, Hopper's."""

import sys
from pathlib import Path

import losses_only
import torch

functional, _ = losses_only.load()
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from op_samples import Sample, batch, cases, values_and_gradients  # noqa: E402


def main() -> None:
    for function, sample in cases("shapes"):
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
            data = sample.to(dtype).to("cuda")
            values_and_gradients(getattr(functional, function.name), data)
    # Chunks right of the diagonal.
    data = Sample(batch(4200, 9, 264)).to(torch.bfloat16).to("cuda")
    values_and_gradients(
        functional.contrastive_losses,
        data._replace(options={"temperature": 0.2, "positives": "in"}),
    )
    torch.cuda.synchronize()
    print("every kernel ran")


if __name__ == "__main__":
    main()
