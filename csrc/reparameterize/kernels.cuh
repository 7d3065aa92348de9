// Device kernels of sampling from Gaussians: one pass over memory forward and one backward.
#pragma once

#include "../common/lanes.cuh"

namespace mcfa_fast {

constexpr int kReparameterizeThreads = 256;

template <typename T>
struct Reparameterization {
  const T* logvar;       // [rows, width]
  const T* noise;        // [rows, width], or [rows] if shared by each row
  int64_t rows;
  int64_t width;
  bool noise_per_row;
  Accumulate<T> power;

  // Deviation times noise of the kVector elements from `at` on.
  template <int kVector>
  __device__ __forceinline__ void spread(int64_t at, Accumulate<T> (&result)[kVector]) const {
    using Part = Lanes<T, kVector>;
    const auto exponent = Part::load(logvar + at);
    Part drawn;
    if (noise_per_row) {
      const T shared = noise[at / width];
#pragma unroll
      for (int k = 0; k < kVector; ++k) {
        drawn.values[k] = shared;
      }
    } else {
      drawn = Part::load(noise + at);
    }
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      result[k] = exp_fast(power * widen(exponent.values[k])) * widen(drawn.values[k]);
    }
  }
};

template <typename T, int kVector>
__global__ void __launch_bounds__(kReparameterizeThreads) reparameterize_forward_kernel(
    const Reparameterization<T> args, const T* means, T* samples) {
  using Part = Lanes<T, kVector>;
  const int64_t at = global_thread() * kVector;
  if (at >= args.rows * args.width) {
    return;
  }
  Accumulate<T> spread[kVector];
  args.template spread<kVector>(at, spread);
  const auto mean = Part::load(means + at);
  Part sample;
#pragma unroll
  for (int k = 0; k < kVector; ++k) {
    sample.values[k] = narrow<T>(widen(mean.values[k]) + spread[k]);
  }
  sample.store(samples + at);
}

template <typename T, int kVector>
__global__ void __launch_bounds__(kReparameterizeThreads) reparameterize_backward_kernel(
    const Reparameterization<T> args, const T* grad_samples, T* grad_logvar) {
  using Part = Lanes<T, kVector>;
  const int64_t at = global_thread() * kVector;
  if (at >= args.rows * args.width) {
    return;
  }
  Accumulate<T> spread[kVector];
  args.template spread<kVector>(at, spread);
  const auto grad = Part::load(grad_samples + at);
  Part result;
#pragma unroll
  for (int k = 0; k < kVector; ++k) {
    result.values[k] = narrow<T>(args.power * widen(grad.values[k]) * spread[k]);
  }
  result.store(grad_logvar + at);
}

}  // namespace mcfa_fast
