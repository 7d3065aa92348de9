"""A bounded run of tests/fuzz_operators.py; MCFA_FUZZ_CASES and MCFA_FUZZ_SEED choose another."""

import os
import subprocess
import sys
from pathlib import Path


def test_random_calls_neither_crash_nor_err():
    cases = os.environ.get("MCFA_FUZZ_CASES", "1500")
    seed = os.environ.get("MCFA_FUZZ_SEED", "0")
    script = Path(__file__).resolve().with_name("fuzz_operators.py")
    result = subprocess.run(
        [sys.executable, str(script), "--cases", cases, "--seed", seed],
        capture_output=True,
        text=True,
    )
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 0, f"{result.stdout[-20000:]}\nended in {last}"
