// The KL divergence on the CPU: one pass over memory in either direction.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "../common/reduce.h"
#include "../common/simd.h"
#include "op.h"

namespace mcfa_fast {
namespace {

using at::Tensor;

constexpr int64_t kRowsPerTask = 256;

namespace loops {

template <typename T>
MCFA_INLINE T divergence_row(const T* mean, const T* logvar, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < n; ++d) {
    sum += mean[d] * mean[d] + simd_exp(logvar[d]) - T(1) - logvar[d];
  }
  return T(0.5) * sum;
}

template <typename T>
MCFA_INLINE void divergence_grad_row(
    T grad, const T* mean, const T* logvar, int64_t n, T* grad_mean, T* grad_logvar) {
#pragma omp simd
  for (int64_t d = 0; d < n; ++d) {
    grad_mean[d] = grad * mean[d];
    grad_logvar[d] = T(0.5) * grad * (simd_exp(logvar[d]) - T(1));
  }
}

}  // namespace loops

#define MCFA_INSTANTIATE_ROWS(T)                                                            \
  MCFA_SIMD_CLONES T divergence_row(const T* mean, const T* logvar, int64_t n) {            \
    return loops::divergence_row(mean, logvar, n);                                          \
  }                                                                                         \
  MCFA_SIMD_CLONES void divergence_grad_row(                                                \
      T grad, const T* mean, const T* logvar, int64_t n, T* grad_mean, T* grad_logvar) {    \
    loops::divergence_grad_row(grad, mean, logvar, n, grad_mean, grad_logvar);              \
  }

MCFA_INSTANTIATE_ROWS(float)
MCFA_INSTANTIATE_ROWS(double)

template <typename T>
Tensor accumulating(const Tensor& tensor) {
  return tensor.to(c10::CppTypeToScalarType<T>::value).contiguous();
}

template <typename T>
Tensor forward(const Tensor& mean_input, const Tensor& logvar_input, Reduction reduction) {
  const auto means = accumulating<T>(mean_input);
  const auto logvars = accumulating<T>(logvar_input);
  const int64_t rows = means.size(0);
  const int64_t width = means.size(1);
  auto result = at::empty({rows}, means.options());
  T* value = result.template mutable_data_ptr<T>();
  const T* mean = means.template const_data_ptr<T>();
  const T* logvar = logvars.template const_data_ptr<T>();
  at::parallel_for(0, rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      value[row] = divergence_row(mean + row * width, logvar + row * width, width);
    }
  });
  return reduced<T>(result, reduction, rows);
}

template <typename T>
KLBackward::Result backward(
    const Tensor& grad_loss, const Tensor& mean_input, const Tensor& logvar_input, Reduction reduction) {
  const auto means = accumulating<T>(mean_input);
  const auto logvars = accumulating<T>(logvar_input);
  const int64_t rows = means.size(0);
  const int64_t width = means.size(1);
  const RowGrads<T> grad(grad_loss, reduction, rows);
  auto grad_means = at::empty_like(means);
  auto grad_logvars = at::empty_like(logvars);
  const T* mean = means.template const_data_ptr<T>();
  const T* logvar = logvars.template const_data_ptr<T>();
  T* grad_mean = grad_means.template mutable_data_ptr<T>();
  T* grad_logvar = grad_logvars.template mutable_data_ptr<T>();
  at::parallel_for(0, rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * width;
      divergence_grad_row(grad[row], mean + at, logvar + at, width, grad_mean + at, grad_logvar + at);
    }
  });
  return {grad_means.to(mean_input.scalar_type()), grad_logvars.to(logvar_input.scalar_type())};
}

Tensor kl_forward_cpu(const Tensor& mean, const Tensor& logvar, std::string_view reduction) {
  const bool in_double = accumulation_type(mean.scalar_type()) == at::kDouble;
  return (in_double ? forward<double> : forward<float>)(mean, logvar, parse_reduction(reduction));
}

KLBackward::Result kl_backward_cpu(
    const Tensor& grad_loss, const Tensor& mean, const Tensor& logvar, std::string_view reduction) {
  const bool in_double = accumulation_type(mean.scalar_type()) == at::kDouble;
  return (in_double ? backward<double> : backward<float>)(grad_loss, mean, logvar, parse_reduction(reduction));
}

MCFA_REGISTER_KERNEL(mcfa_fast, CPU, KLForward, kl_forward_cpu)
MCFA_REGISTER_KERNEL(mcfa_fast, CPU, KLBackward, kl_backward_cpu)

}  // namespace
}  // namespace mcfa_fast
