// Sampling from Gaussians on the CPU: one pass over memory in either direction.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "../common/simd.h"
#include "../common/tasks.h"
#include "op.h"

namespace mcfa_fast {
namespace {

using at::Tensor;

namespace loops {

template <typename T>
MCFA_INLINE void sample_row(T power, const T* mean, const T* logvar, const T* noise, int64_t n, T* sample) {
#pragma omp simd
  for (int64_t d = 0; d < n; ++d) {
    sample[d] = mean[d] + simd_exp(power * logvar[d]) * noise[d];
  }
}

template <typename T>
MCFA_INLINE void sample_row(T power, const T* mean, const T* logvar, T noise, int64_t n, T* sample) {
#pragma omp simd
  for (int64_t d = 0; d < n; ++d) {
    sample[d] = mean[d] + simd_exp(power * logvar[d]) * noise;
  }
}

template <typename T>
MCFA_INLINE void grad_row(T power, const T* grad, const T* logvar, const T* noise, int64_t n, T* grad_logvar) {
#pragma omp simd
  for (int64_t d = 0; d < n; ++d) {
    grad_logvar[d] = power * grad[d] * (simd_exp(power * logvar[d]) * noise[d]);
  }
}

template <typename T>
MCFA_INLINE void grad_row(T power, const T* grad, const T* logvar, T noise, int64_t n, T* grad_logvar) {
#pragma omp simd
  for (int64_t d = 0; d < n; ++d) {
    grad_logvar[d] = power * grad[d] * (simd_exp(power * logvar[d]) * noise);
  }
}

}  // namespace loops

// Noise: a pointer to that of every element, or the value that a row shares.
#define MCFA_INSTANTIATE_ROWS(T, Noise)                                                                              \
  MCFA_SIMD_CLONES void sample_row(T power, const T* mean, const T* logvar, Noise noise, int64_t n, T* sample) {     \
    loops::sample_row(power, mean, logvar, noise, n, sample);                                                        \
  }                                                                                                                  \
  MCFA_SIMD_CLONES void grad_row(T power, const T* grad, const T* logvar, Noise noise, int64_t n, T* grad_logvar) {  \
    loops::grad_row(power, grad, logvar, noise, n, grad_logvar);                                                     \
  }

MCFA_INSTANTIATE_ROWS(float, const float*)
MCFA_INSTANTIATE_ROWS(float, float)
MCFA_INSTANTIATE_ROWS(double, const double*)
MCFA_INSTANTIATE_ROWS(double, double)

// What both directions are: a result [N, D] from `first`, the means or the samples' gradient, [N, D], the
// log-variances [N, D] and the noise, by compute(first, logvar, noise, n, result) for every row.
template <typename T, typename Compute>
Tensor by_rows(const Tensor& first_input, const Tensor& logvar_input, const Tensor& noise_input, const Compute& compute) {
  const auto accumulating = [](const Tensor& tensor) {
    return tensor.to(c10::CppTypeToScalarType<T>::value).contiguous();
  };
  const auto firsts = accumulating(first_input);
  const auto logvars = accumulating(logvar_input);
  const auto noises = accumulating(noise_input);
  const int64_t width = firsts.size(1);
  const bool per_row = noises.size(1) != width;
  auto results = at::empty_like(firsts);
  const T* first = firsts.template const_data_ptr<T>();
  const T* logvar = logvars.template const_data_ptr<T>();
  const T* noise = noises.template const_data_ptr<T>();
  T* result = results.template mutable_data_ptr<T>();
  at::parallel_for(0, firsts.size(0), rows_per_task(width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * width;
      if (per_row) {
        compute(first + at, logvar + at, noise[row], width, result + at);
      } else {
        compute(first + at, logvar + at, noise + at, width, result + at);
      }
    }
  });
  return results.to(first_input.scalar_type());
}

template <typename T>
Tensor forward(const Tensor& mean, const Tensor& logvar, const Tensor& noise, double power) {
  return by_rows<T>(mean, logvar, noise, [power](const T* m, const T* l, auto e, int64_t n, T* sample) {
    sample_row(static_cast<T>(power), m, l, e, n, sample);
  });
}

template <typename T>
Tensor backward(const Tensor& grad_samples, const Tensor& logvar, const Tensor& noise, double power) {
  return by_rows<T>(grad_samples, logvar, noise, [power](const T* g, const T* l, auto e, int64_t n, T* grad_logvar) {
    grad_row(static_cast<T>(power), g, l, e, n, grad_logvar);
  });
}

Tensor reparameterize_forward_cpu(const Tensor& mean, const Tensor& logvar, const Tensor& noise, double power) {
  const bool in_double = accumulation_type(mean.scalar_type()) == at::kDouble;
  return (in_double ? forward<double> : forward<float>)(mean, logvar, noise, power);
}

Tensor reparameterize_backward_cpu(
    const Tensor& grad_samples, const Tensor& logvar, const Tensor& noise, double power) {
  const bool in_double = accumulation_type(logvar.scalar_type()) == at::kDouble;
  return (in_double ? backward<double> : backward<float>)(grad_samples, logvar, noise, power);
}

MCFA_REGISTER_KERNEL(mcfa_fast, CPU, ReparameterizeForward, reparameterize_forward_cpu)
MCFA_REGISTER_KERNEL(mcfa_fast, CPU, ReparameterizeBackward, reparameterize_backward_cpu)

}  // namespace
}  // namespace mcfa_fast
