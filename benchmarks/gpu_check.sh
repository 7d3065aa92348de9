#!/usr/bin/env bash
# Everything that needs a GPU, in one command and under nine minutes: builds the extension with CUDA from this tree, runs
# the GPU tests, the benchmarks and compute-sanitizer on small shapes, in the order of what they are worth. Needs python3
# with a CUDA build of PyTorch, NumPy, pytest and ninja, and nvcc; downloads nothing. Exits with 1 if a step failed; a step
# that ran out of time is reported as cut, and is no failure.
#
#   PYTHON=python3 RESULTS=benchmarks/results benchmarks/gpu_check.sh [folder for logs]
#
# RESULTS gets gpu_check.json and at most seven files of figures.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=$("${PYTHON:-python3}" -c 'import sys; print(sys.executable)')
LOGS=${1:-build/gpu_check}
RESULTS=${RESULTS:-benchmarks/results}
mkdir -p "$LOGS" "$RESULTS"
export PYTHONPATH=$PWD:$PWD/benchmarks
export CUDA_HOME=${CUDA_HOME:-/usr/local/cuda}
# The headers of the CUDA libraries, where PyTorch came with them.
libraries=$("$PYTHON" -c 'import nvidia.cu13 as cuda; print(list(cuda.__path__)[0])' 2> /dev/null)
[ -z "$libraries" ] || export CPATH=$libraries/include${CPATH:+:$CPATH} LIBRARY_PATH=$libraries/lib${LIBRARY_PATH:+:$LIBRARY_PATH}
started=$SECONDS
failed=0
report=""
last_status=0
LIMIT=535

# step NAME SECONDS COMMAND...: runs the command within so many seconds, or what is left of all, its output in
# $LOGS/NAME.log. A failure is one of the whole check, but for names that begin with "rivals".
step() {
  local name=$1 limit=$2 begin=$SECONDS left=$((LIMIT - (SECONDS - started))) outcome=passed
  shift 2
  if [ $left -lt 10 ]; then
    outcome=cut
  else
    timeout -k 5 $((limit < left ? limit : left)) "$@" > "$LOGS/$name.log" 2>&1
    last_status=$?
    if [ $last_status -eq 124 ] || [ $last_status -eq 137 ]; then
      outcome=cut
    elif [ $last_status -ne 0 ]; then
      outcome=failed
      [[ $name == rivals* ]] || failed=1
    fi
    [ $outcome = passed ] || tail -n 40 "$LOGS/$name.log"
  fi
  echo "$name: $outcome after $((SECONDS - begin)) s"
  report="$report{\"step\": \"$name\", \"outcome\": \"$outcome\", \"seconds\": $((SECONDS - begin))},"
  printf '{"seconds": %d, "failed": %d, "steps": [%s]}\n' $((SECONDS - started)) $failed "${report%,}" \
    > "$RESULTS/gpu_check.json"
}

# From a folder of its own, without pyproject.toml, which old versions of setuptools cannot read; for the GPU that is
# here alone, which halves the time.
build() {
  rm -rf build/gpu && mkdir -p build/gpu || return
  cp -r csrc setup.py build/gpu/ || return
  local architecture
  architecture=$("$PYTHON" -c 'import torch; c = torch.cuda.get_device_capability(); print("9.0a" if c == (9, 0) else "%d.%d" % c)') || return
  (cd build/gpu && TORCH_CUDA_ARCH_LIST=$architecture MAX_JOBS=$(nproc) MCFA_FAST_CUDA=on \
    "$PYTHON" setup.py build_ext --build-lib lib) || return
  cp build/gpu/lib/mcfa_fast/_C*.so mcfa_fast/ || return
  "$PYTHON" build_support/check_cuda.py build/gpu/lib
}

run_build() { build; }
export -f build run_build
export PYTHON
last_status=1
step build 240 bash -c run_build
if [ $last_status -ne 0 ]; then
  failed=1  # without the extension there is nothing to check
else
  tests() { # tests NAME SECONDS ENVIRONMENT EXPRESSION
    step "$1" "$2" env "$3" "$PYTHON" -m pytest -q --maxfail=15 -p no:cacheprovider -c pyproject.toml --rootdir . \
      --confcutdir tests/gpu tests/gpu -k "$4"
  }
  tests tests 120 MCFA_FAST_HOPPER=off ""
  # The benchmarks come before the sanitizer: they are what a short lease is for.
  step benchmarks 100 "$PYTHON" benchmarks/gpu_losses.py --output "$RESULTS/gpu_losses.json"
  cat "$LOGS/benchmarks.log"
  # The kernels with Hopper's own instructions, which have to be asked for until they have been seen to win.
  choices=""
  [ "$("$PYTHON" -c 'import torch; print(torch.cuda.get_device_capability())')" != "(9, 0)" ] || choices="on polynomial"
  for hopper in $choices; do
    tests "hopper_${hopper}_tests" 60 MCFA_FAST_HOPPER=$hopper \
      "(float16 or bfloat16 or captured or streams or million) and not (wasserstein or kl or l1 or reparam)"
    step "hopper_$hopper" 30 env MCFA_FAST_HOPPER=$hopper "$PYTHON" benchmarks/gpu_losses.py --fused \
      --output "$RESULTS/gpu_losses_hopper_$hopper.json"
    cat "$LOGS/hopper_$hopper.log"
  done
  if command -v compute-sanitizer > /dev/null; then
    # Of our kernels alone: those of the libraries are many, and not ours to check.
    for tool in memcheck racecheck; do
      step "$tool" 60 compute-sanitizer --tool "$tool" --kernel-regex kns=mcfa_fast --error-exitcode 1 \
        "$PYTHON" benchmarks/gpu_small.py
    done
    [ -z "$choices" ] || step memcheck_hopper 40 env MCFA_FAST_HOPPER=on \
      compute-sanitizer --tool memcheck --kernel-regex kns=mcfa_fast --error-exitcode 1 "$PYTHON" benchmarks/gpu_small.py
  else
    echo "no compute-sanitizer here"
  fi
  if "$PYTHON" -c "import hypothesis, mcfa_fast, tensorboard" 2> /dev/null; then
    step training_tests 40 "$PYTHON" -m pytest -q -p no:cacheprovider -c pyproject.toml --rootdir . -k "cuda or captured" \
      tests/test_training_step.py tests/test_training_trainer.py
    step training 60 "$PYTHON" benchmarks/gpu_training.py --output "$RESULTS/gpu_training.json"
  else
    echo "training is left out: the package's own requirements are not installed"
  fi
  step rivals 60 "$PYTHON" benchmarks/gpu_losses.py --rivals --output "$RESULTS/gpu_rivals.json"
  cat "$LOGS/rivals.log"
fi
cat "$RESULTS/gpu_check.json"
exit $failed
