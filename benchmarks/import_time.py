"""What importing the library costs over importing PyTorch.

Each row is the shortest of several fresh processes. The losses load the compiled extension when
they are first used; a classifier loads scikit-learn, SciPy and pydantic.

Usage: python benchmarks/import_time.py [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

STEPS = (
    "import torch",
    "import mcfa_fast",
    "from mcfa_fast import compat, functional, losses, ops, reference, in_chunks",
    "from mcfa_fast import ZeroShotClassifier",
)
TARGET_MS = 50.0

_TIMED = """
import json, sys, time
milliseconds = []
for step in json.loads(sys.argv[1]):
    start = time.perf_counter()
    exec(step)
    milliseconds.append(1e3 * (time.perf_counter() - start))
print(json.dumps(milliseconds))
"""


def milliseconds(steps: tuple[str, ...] = STEPS, rounds: int = 5) -> dict[str, float]:
    """The time of each step after those before it, the shortest of so many processes."""
    command = [sys.executable, "-c", _TIMED, json.dumps(steps)]
    runs = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(rounds)
    ]
    return {step: min(times) for step, times in zip(steps, zip(*runs, strict=True), strict=True)}


def main(rounds: int) -> None:
    measured = milliseconds(rounds=rounds)
    for step, time in measured.items():
        print(f"{time:8.1f} ms  {step}")
    over = measured["import mcfa_fast"]
    print(f"import mcfa_fast costs {over:.1f} ms over import torch (target: {TARGET_MS:.0f} ms)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    main(parser.parse_args().rounds)
