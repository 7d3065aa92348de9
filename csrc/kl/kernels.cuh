// Device kernels of the KL divergence: one pass over memory forward and one backward.
#pragma once

#include "../common/lanes.cuh"

namespace mcfa_fast {

constexpr int kKLThreads = 256;

// divergence [rows] of each row's Gaussian from the unit Gaussian. A group of lanes, a power of two up to 32, takes a row.
// (Two blocks per multiprocessor is no more than the kernel has anyway; without it, sm_90a's float64 spills registers.)
template <typename T, int kVector>
__global__ void __launch_bounds__(kKLThreads, 2) kl_forward_kernel(
    const T* means, const T* logvars, int64_t rows, int64_t width, int group, Accumulate<T>* divergence) {
  using A = Accumulate<T>;
  using Part = Lanes<T, kVector>;
  const int64_t row = global_thread() / group;
  A sum = 0;
  if (row < rows) {
    for (int64_t d = threadIdx.x % group * kVector; d < width; d += group * kVector) {
      const auto mean = Part::load(means + row * width + d);
      const auto logvar = Part::load(logvars + row * width + d);
#pragma unroll
      for (int k = 0; k < kVector; ++k) {
        const A m = widen(mean.values[k]);
        const A l = widen(logvar.values[k]);
        sum += m * m + exp_fast(l) - A(1) - l;
      }
    }
  }
  for (int mask = group / 2; mask > 0; mask /= 2) {
    sum += shuffle_xor(sum, mask);
  }
  if (row < rows && threadIdx.x % group == 0) {
    divergence[row] = A(0.5) * sum;
  }
}

template <typename T>
struct KLGrads {
  const Accumulate<T>* grad_loss;
  int64_t stride;       // 0 for a reduced loss, 1 for one per row
  Accumulate<T> scale;  // 1, or 1 / rows for a mean
  T* mean;
  T* logvar;
};

template <typename T, int kVector>
__global__ void __launch_bounds__(kKLThreads) kl_backward_kernel(
    const T* means, const T* logvars, int64_t rows, int64_t width, const KLGrads<T> grads) {
  using A = Accumulate<T>;
  using Part = Lanes<T, kVector>;
  const int64_t at = global_thread() * kVector;
  if (at >= rows * width) {
    return;
  }
  const A grad = grads.scale * grads.grad_loss[at / width * grads.stride];
  const auto mean = Part::load(means + at);
  const auto logvar = Part::load(logvars + at);
  Part grad_mean;
  Part grad_logvar;
#pragma unroll
  for (int k = 0; k < kVector; ++k) {
    grad_mean.values[k] = narrow<T>(grad * widen(mean.values[k]));
    grad_logvar.values[k] = narrow<T>(A(0.5) * grad * (exp_fast(widen(logvar.values[k])) - A(1)));
  }
  grad_mean.store(grads.mean + at);
  grad_logvar.store(grads.logvar + at);
}

}  // namespace mcfa_fast
