"""``python distributed_main.py RANK SIZE STORE FOLDER``: one process of test_distributed.py."""

import sys

import distributed_forms  # noqa: F401  (registers its cases, as does the next)
import distributed_pairs  # noqa: F401
import distributed_steps  # noqa: F401
from distributed_ranks import run_cases

if __name__ == "__main__":
    run_cases(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
