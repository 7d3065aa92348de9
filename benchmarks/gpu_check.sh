#!/usr/bin/env bash
# Everything that needs a GPU, in one command and under nine minutes: builds the extension with CUDA from this tree, runs
# the GPU tests, compute-sanitizer on small shapes, and the benchmarks; writes benchmarks/results/gpu_losses*.json and
# gpu_check.json. Needs python3 with a CUDA build of PyTorch, pytest and ninja, and nvcc; downloads nothing.
#
#   PYTHON=python3 benchmarks/gpu_check.sh [folder for logs]
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
LOGS=${1:-build/gpu_check}
RESULTS=benchmarks/results
mkdir -p "$LOGS" "$RESULTS"
export PYTHONPATH=$PWD:$PWD/benchmarks
started=$SECONDS
failed=0
report=""

# step NAME SECONDS COMMAND...: runs the command within so many seconds, its output in $LOGS/NAME.log.
step() {
  local name=$1 limit=$2 begin=$SECONDS status
  shift 2
  timeout "$limit" "$@" > "$LOGS/$name.log" 2>&1
  status=$?
  [ $status -eq 0 ] || { failed=1; tail -n 40 "$LOGS/$name.log"; }
  echo "$name: exit $status after $((SECONDS - begin)) s"
  report="$report{\"step\": \"$name\", \"exit\": $status, \"seconds\": $((SECONDS - begin))},"
}

# From a folder of its own, without pyproject.toml, which old versions of setuptools cannot read; for the GPU that is
# here alone, which halves the time.
build() {
  rm -rf build/gpu && mkdir -p build/gpu || return
  cp -r csrc setup.py build/gpu/ || return
  local architecture=${TORCH_CUDA_ARCH_LIST:-}
  [ -n "$architecture" ] || architecture=$("$PYTHON" -c 'import torch; c = torch.cuda.get_device_capability(); print("9.0a" if c == (9, 0) else "%d.%d" % c)') || return
  (cd build/gpu && TORCH_CUDA_ARCH_LIST=$architecture MAX_JOBS=$(nproc) MCFA_FAST_CUDA=on \
    "$PYTHON" setup.py build_ext --build-lib lib) || return
  cp build/gpu/lib/mcfa_fast/_C*.so mcfa_fast/ || return
  "$PYTHON" build_support/check_cuda.py .
}

run_build() { build; }
export -f build run_build
export PYTHON
step build 240 bash -c run_build
if [ $failed -eq 0 ]; then
  step tests 150 "$PYTHON" -m pytest -q --maxfail=15 -p no:cacheprovider -c pyproject.toml --rootdir . tests/test_gpu.py
  # The benchmarks come before the sanitizer: they are what a short lease is for.
  step benchmarks 150 "$PYTHON" benchmarks/gpu_losses.py --output "$RESULTS/gpu_losses.json"
  cat "$LOGS/benchmarks.log"
  # The kernels with Hopper's own instructions, which have to be asked for until they have been seen to win.
  if [ "$("$PYTHON" -c 'import torch; print(torch.cuda.get_device_capability())')" = "(9, 0)" ]; then
    for hopper in on polynomial; do
      step "hopper_${hopper}_tests" 60 env MCFA_FAST_HOPPER=$hopper "$PYTHON" -m pytest -q --maxfail=15 \
        -p no:cacheprovider -c pyproject.toml --rootdir . tests/test_gpu.py \
        -k "values_and_gradients or low_precision or bitwise or captured or streams or million"
      step "hopper_$hopper" 40 env MCFA_FAST_HOPPER=$hopper "$PYTHON" benchmarks/gpu_losses.py --fused \
        --output "$RESULTS/gpu_losses_hopper_$hopper.json"
      cat "$LOGS/hopper_$hopper.log"
    done
  fi
  if "$PYTHON" -c "import hypothesis, mcfa_fast, tensorboard" 2> /dev/null; then
    step training_tests 100 "$PYTHON" -m pytest -q -p no:cacheprovider -c pyproject.toml --rootdir . -k "cuda or captured" \
      tests/test_training_step.py tests/test_training_trainer.py
    step training 100 "$PYTHON" benchmarks/gpu_training.py --output "$RESULTS/gpu_training.json"
  else
    echo "training is left out: the package's own requirements are not installed"
  fi
  if command -v compute-sanitizer > /dev/null; then
    left=$((530 - (SECONDS - started)))
    for tool in memcheck racecheck; do
      [ $left -gt 20 ] && step "$tool" "$left" compute-sanitizer --tool "$tool" --error-exitcode 1 \
        "$PYTHON" benchmarks/gpu_small.py
      left=$((530 - (SECONDS - started)))
    done
  else
    echo "no compute-sanitizer here"
  fi
fi
printf '{"seconds": %d, "failed": %d, "steps": [%s]}\n' $((SECONDS - started)) $failed "${report%,}" > "$RESULTS/gpu_check.json"
cat "$RESULTS/gpu_check.json"
exit $failed
