#!/usr/bin/env bash
# Accuracy on WHU-RS19 with image-text embeddings, images classified together: the transductive tables of
# benchmarks/results/whu_rs19. A killed run goes on where it was when the same command is given again.
#
#   benchmarks/whu_rs19.sh [JOBS]
set -euo pipefail
cd "$(dirname "$0")/.."
JOBS=${1:-2}
COMMAND=${MCFA_FAST:-.venv/bin/mcfa-fast}
PYTHON=${PYTHON:-.venv/bin/python}
DATA=${WHU_RS19:-../shared/data/whu_rs19}
RUNS=${RUNS:-runs/whu_rs19}
RESULTS=${RESULTS:-benchmarks/results/whu_rs19}

for encoder in clip_rn50 clip_b32 georsclip_b32; do
  "$COMMAND" benchmark --data "$DATA" --features "$encoder" --semantics "$encoder" --transductive \
    --systems text-matching,text-matching:adapted --against text-matching --jobs "$JOBS" --out "$RUNS/$encoder-transductive"
  mkdir -p "$RESULTS/$encoder-transductive"
  cp "$RUNS/$encoder-transductive/table.md" "$RUNS/$encoder-transductive/results.csv" "$RESULTS/$encoder-transductive/"
done
# All classes at once, with no training image.
"$PYTHON" benchmarks/without_training.py "$DATA" --results "$RESULTS"
