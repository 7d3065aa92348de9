#!/usr/bin/env bash
# Accuracy on AID: every table of benchmarks/results/aid, by `mcfa-fast benchmark` and `mcfa-fast sweep`. A killed run
# goes on where it was when the same command is given again.
#
#   benchmarks/aid.sh [JOBS [STUDY...]]     studies: methods methods-1024 seeds ablation changes reference
#                                             preset large-batch transductive
set -euo pipefail
cd "$(dirname "$0")/.."
JOBS=${1:-2}
shift || true
STUDIES=${*:-methods methods-1024 seeds ablation changes reference preset large-batch transductive}
COMMAND=${MCFA_FAST:-.venv/bin/mcfa-fast}
DATA=${AID:-../shared/data/aid}
RUNS=${RUNS:-runs/aid}
RESULTS=${RESULTS:-benchmarks/results/aid}

# compare NAME FEATURES ARGUMENTS...: one comparison of systems.
compare() {
  "$COMMAND" benchmark --data "$DATA" --features "$2" --semantics text --jobs "$JOBS" --out "$RUNS/$1" "${@:3}"
  mkdir -p "$RESULTS/$1"
  cp "$RUNS/$1/table.md" "$RUNS/$1/results.csv" "$RESULTS/$1/"
}

# tune NAME TASK SPLITS CHOICES...: every combination of these options of the recommended system, on folds of the seen
# classes.
tune() {
  local choices=()
  for choice in "${@:4}"; do choices+=(--choose "$choice"); done
  "$COMMAND" sweep --data "$DATA" --features 512 --semantics text --system dual-encoder --task "$2" --splits "$3" \
    "${choices[@]}" --jobs "$JOBS" --out "$RUNS/preset/$1"
  mkdir -p "$(dirname "$RESULTS/preset/$1")"
  cp "$RUNS/preset/$1/trials.csv" "$RESULTS/preset/$1.csv"
}

for study in $STUDIES; do
  case $study in
    methods) compare methods 512 --systems dual-encoder,closed-form,linear,trained,generative ;;
    methods-1024) compare methods-1024 1024 --systems dual-encoder,eszsl,ale,sje ;;
    seeds) compare seeds 512 --systems dual-encoder --seeds 0,1,2,3,4 ;;
    ablation) compare ablation 512 --systems ablation ;;
    transductive) compare transductive 512 --systems dual-encoder,closed-form --transductive ;;
    changes) compare changes 512 --systems changes --splits 20/10 ;;
    reference) compare reference 512 --systems mcfa:reference --splits 20/10:0 --seeds 0,1,2,3,4 ;;
    preset)
      all=25/5,20/10,15/15
      tune zsl/together zsl $all epochs=4,8,16 nearest.whitening=null,3.0 visual_dropout=0.5,0.6
      tune gzsl/together gzsl $all nearest.seen_gain=1.0,3.0 nearest.whitening=null,3.0 epochs=8,16 \
        visual_dropout=0.5,0.6
      # Single changes.
      for task in zsl gzsl; do
        for choice in visual_dropout=0.0,0.3,0.5,0.6,0.75 temperature=0.1,0.2,0.3 semantic_gain=0.05,0.5 \
          embedding_features=64,128 nearest.prototype_kernel=null,0.5 nearest.whitening=null,1.0,3.0; do
          tune "$task/${choice%%=*}" $task 20/10 "$choice"
        done
      done
      tune gzsl/seen_gain gzsl 20/10 nearest.seen_gain=1.0,2.0,3.0,5.0 ;;
    large-batch)
      "$COMMAND" sweep --data "$DATA" --features 512 --semantics text --system mcfa --task zsl --head nearest \
        --splits 20/10:0,20/10:1 --folds 2 --set sampler=batch --choose batch_size=256,1024,null \
        --choose learning_rate_scaling=none,sqrt,linear --jobs "$JOBS" --out "$RUNS/large-batch"
      cp "$RUNS/large-batch/trials.csv" "$RESULTS/large-batch.csv" ;;
    *) echo "unknown study: $study" >&2; exit 2 ;;
  esac
done
