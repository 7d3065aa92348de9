"""Memory of forward and backward, measured as the peak of a whole process."""

import json
import subprocess
import sys

import pytest

MEASURE = """
import json, resource, sys
import torch
from mcfa_fast import functional

instances, width, classes, positives = int(sys.argv[1]), 64, 70, sys.argv[2]
visual = torch.randn(instances, width, requires_grad=True)
semantic = torch.randn(classes, width, requires_grad=True)
labels = torch.randint(0, classes, (instances,))
small = functional.contrastive_losses(visual[:512], semantic, labels[:512], temperature=0.1)
sum(small).backward()  # loads what PyTorch loads on first use
visual.grad = semantic.grad = None

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = peak()
sum(functional.contrastive_losses(
    visual, semantic, labels, temperature=0.1, positives=positives
)).backward()
print(json.dumps({"above_inputs": peak() - before, "finite": bool(visual.grad.isfinite().all())}))
"""


@pytest.mark.parametrize("positives", ["out", "in"])
def test_peak_memory_at_32768_instances_stays_under_200_megabytes(positives):
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, "32768", positives],
        capture_output=True,
        text=True,
        check=True,
    )
    measured = json.loads(result.stdout)
    assert measured["finite"]
    # The N×N matrix of similarities alone would be 4.3 GB.
    assert measured["above_inputs"] < 200e6
