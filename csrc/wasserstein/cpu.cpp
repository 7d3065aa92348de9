// The Wasserstein alignment on the CPU, one pass over memory in either direction. With labels, the standard
// deviations of b are computed once per class, and the gradients of the classes are added up in shares of the
// rows whose number does not depend on the threads, so that results do not either.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "../common/labels.h"
#include "../common/reduce.h"
#include "../common/simd.h"
#include "op.h"

namespace mcfa_fast {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

constexpr int64_t kRowsPerTask = 256;

namespace loops {

template <typename T>
MCFA_INLINE void deviation_row(const T* logvar, T* deviation, int64_t n) {
#pragma omp simd
  for (int64_t d = 0; d < n; ++d) {
    deviation[d] = simd_exp(T(0.5) * logvar[d]);
  }
}

template <typename T>
MCFA_INLINE T squared_distance_row(const T* mean_a, const T* logvar_a, const T* mean_b, const T* deviation_b, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < n; ++d) {
    const T mean = mean_a[d] - mean_b[d];
    const T deviation = simd_exp(T(0.5) * logvar_a[d]) - deviation_b[d];
    sum += mean * mean + deviation * deviation;
  }
  return sum;
}

// Gradients of a's row, and minus those of b's means and deviations added to grad_mean_b, grad_deviation_b.
template <typename T>
MCFA_INLINE void grad_row(
    T weight, const T* mean_a, const T* logvar_a, const T* mean_b, const T* deviation_b, int64_t n, T* grad_mean_a,
    T* grad_logvar_a, T* grad_mean_b, T* grad_deviation_b) {
#pragma omp simd
  for (int64_t d = 0; d < n; ++d) {
    const T deviation_a = simd_exp(T(0.5) * logvar_a[d]);
    const T mean = weight * (mean_a[d] - mean_b[d]);
    const T deviation = weight * (deviation_a - deviation_b[d]);
    grad_mean_a[d] = mean;
    grad_logvar_a[d] = T(0.5) * deviation_a * deviation;
    grad_mean_b[d] -= mean;
    grad_deviation_b[d] -= deviation;
  }
}

}  // namespace loops

#define MCFA_INSTANTIATE_ROWS(T)                                                                             \
  MCFA_SIMD_CLONES void deviation_row(const T* logvar, T* deviation, int64_t n) {                            \
    loops::deviation_row(logvar, deviation, n);                                                              \
  }                                                                                                          \
  MCFA_SIMD_CLONES T squared_distance_row(                                                                   \
      const T* mean_a, const T* logvar_a, const T* mean_b, const T* deviation_b, int64_t n) {                \
    return loops::squared_distance_row(mean_a, logvar_a, mean_b, deviation_b, n);                            \
  }                                                                                                          \
  MCFA_SIMD_CLONES void grad_row(                                                                            \
      T weight, const T* mean_a, const T* logvar_a, const T* mean_b, const T* deviation_b, int64_t n,        \
      T* grad_mean_a, T* grad_logvar_a, T* grad_mean_b, T* grad_deviation_b) {                               \
    loops::grad_row(                                                                                         \
        weight, mean_a, logvar_a, mean_b, deviation_b, n, grad_mean_a, grad_logvar_a, grad_mean_b,           \
        grad_deviation_b);                                                                                   \
  }

MCFA_INSTANTIATE_ROWS(float)
MCFA_INSTANTIATE_ROWS(double)

// The inputs in the accumulation dtype, with b's standard deviations, and which rows of a meet which row of b.
template <typename T>
class Problem {
 public:
  static constexpr int64_t kMostShares = 32;

  Problem(
      const Tensor& mean_a, const Tensor& logvar_a, const Tensor& mean_b, const Tensor& logvar_b,
      const OptionalTensor& labels)
      : mean_a_(accumulating(mean_a)),
        logvar_a_(accumulating(logvar_a)),
        mean_b_(accumulating(mean_b)),
        deviation_b_(at::empty_like(mean_b_)) {
    const auto logvar = accumulating(logvar_b);
    at::parallel_for(0, rows_b(), kRowsPerTask, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        deviation_row(
            logvar.template const_data_ptr<T>() + row * columns(),
            deviation_b_.template mutable_data_ptr<T>() + row * columns(), columns());
      }
    });
    if (labels) {
      labels_ = checked_labels(*labels, rows_b());
    }
  }

  int64_t rows_a() const {
    return mean_a_.size(0);
  }
  int64_t rows_b() const {
    return mean_b_.size(0);
  }
  int64_t columns() const {
    return mean_a_.size(1);
  }
  const T* mean_a(int64_t row) const {
    return at_row(mean_a_, row);
  }
  const T* logvar_a(int64_t row) const {
    return at_row(logvar_a_, row);
  }
  const T* mean_b(int64_t row) const {
    return at_row(mean_b_, row);
  }
  const T* deviation_b(int64_t row) const {
    return at_row(deviation_b_, row);
  }

  const Tensor& deviations_b() const {
    return deviation_b_;
  }

  // The row of b that a's row is compared with.
  int64_t row_of_b(int64_t row) const {
    return labels_.defined() ? labels_.const_data_ptr<int64_t>()[row] : row;
  }

  // How many copies of b's gradients are added to at the same time: together they are no larger than a.
  int64_t shares() const {
    return labels_.defined() ? std::clamp<int64_t>(rows_a() / std::max<int64_t>(rows_b(), 1), 1, kMostShares) : 1;
  }

 private:
  static Tensor accumulating(const Tensor& tensor) {
    return tensor.to(c10::CppTypeToScalarType<T>::value).contiguous();
  }
  const T* at_row(const Tensor& tensor, int64_t row) const {
    return tensor.template const_data_ptr<T>() + row * columns();
  }

  Tensor mean_a_;
  Tensor logvar_a_;
  Tensor mean_b_;
  Tensor deviation_b_;
  Tensor labels_;
};

template <typename T>
WassersteinForward::Result forward(
    const Tensor& mean_a, const Tensor& logvar_a, const Tensor& mean_b, const Tensor& logvar_b,
    const OptionalTensor& labels, Reduction reduction) {
  const Problem<T> problem(mean_a, logvar_a, mean_b, logvar_b, labels);
  auto distance = at::empty({problem.rows_a()}, mean_a.options().dtype(c10::CppTypeToScalarType<T>::value));
  T* distances = distance.template mutable_data_ptr<T>();
  at::parallel_for(0, problem.rows_a(), kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t a = begin; a < end; ++a) {
      const int64_t b = problem.row_of_b(a);
      distances[a] = std::sqrt(squared_distance_row(
          problem.mean_a(a), problem.logvar_a(a), problem.mean_b(b), problem.deviation_b(b), problem.columns()));
    }
  });
  const auto losses = reduction == Reduction::kNone ? distance.clone() : distance;  // outputs may not share memory
  return {reduced<T>(losses, reduction, problem.rows_a()), distance};
}

template <typename T>
WassersteinBackward::Result backward(
    const Tensor& grad_loss, const Tensor& distance, const Tensor& mean_a, const Tensor& logvar_a,
    const Tensor& mean_b, const Tensor& logvar_b, const OptionalTensor& labels, Reduction reduction) {
  const Problem<T> problem(mean_a, logvar_a, mean_b, logvar_b, labels);
  const int64_t width = problem.columns();
  const auto options = distance.options();
  const RowGrads<T> grad(grad_loss, reduction, problem.rows_a());
  const T* distances = distance.template const_data_ptr<T>();
  auto grad_mean_a = at::empty({problem.rows_a(), width}, options);
  auto grad_logvar_a = at::empty({problem.rows_a(), width}, options);
  const int64_t shares = problem.shares();
  auto grad_mean_b = at::zeros({shares, problem.rows_b(), width}, options);
  auto grad_deviation_b = at::zeros_like(grad_mean_b);
  const auto row_of = [width](Tensor& tensor, int64_t row) { return tensor.template mutable_data_ptr<T>() + row * width; };
  const auto visit = [&](int64_t a, int64_t share) {
    const int64_t b = problem.row_of_b(a);
    const int64_t to = share * problem.rows_b() + b;
    const T weight = distances[a] > 0 ? grad[a] / distances[a] : T(0);
    grad_row(
        weight, problem.mean_a(a), problem.logvar_a(a), problem.mean_b(b), problem.deviation_b(b), width,
        row_of(grad_mean_a, a), row_of(grad_logvar_a, a), row_of(grad_mean_b, to), row_of(grad_deviation_b, to));
  };
  if (labels) {
    const int64_t rows_per_share = at::divup(problem.rows_a(), shares);
    at::parallel_for(0, shares, 1, [&](int64_t begin, int64_t end) {
      for (int64_t share = begin; share < end; ++share) {
        const int64_t last = std::min((share + 1) * rows_per_share, problem.rows_a());
        for (int64_t a = share * rows_per_share; a < last; ++a) {
          visit(a, share);
        }
      }
    });
  } else {
    at::parallel_for(0, problem.rows_a(), kRowsPerTask, [&](int64_t begin, int64_t end) {
      for (int64_t a = begin; a < end; ++a) {
        visit(a, 0);
      }
    });
  }
  const auto total_mean_b = shares == 1 ? grad_mean_b.select(0, 0) : grad_mean_b.sum(0);
  const auto total_deviation_b = shares == 1 ? grad_deviation_b.select(0, 0) : grad_deviation_b.sum(0);
  const auto grad_logvar_b = total_deviation_b.mul(problem.deviations_b()).mul_(0.5);
  const auto type = mean_a.scalar_type();
  return {grad_mean_a.to(type), grad_logvar_a.to(type), total_mean_b.to(type), grad_logvar_b.to(type)};
}

WassersteinForward::Result wasserstein_forward_cpu(
    const Tensor& mean_a, const Tensor& logvar_a, const Tensor& mean_b, const Tensor& logvar_b,
    const OptionalTensor& labels, std::string_view reduction) {
  const bool in_double = accumulation_type(mean_a.scalar_type()) == at::kDouble;
  return (in_double ? forward<double> : forward<float>)(
      mean_a, logvar_a, mean_b, logvar_b, labels, parse_reduction(reduction));
}

WassersteinBackward::Result wasserstein_backward_cpu(
    const Tensor& grad_loss, const Tensor& distance, const Tensor& mean_a, const Tensor& logvar_a,
    const Tensor& mean_b, const Tensor& logvar_b, const OptionalTensor& labels, std::string_view reduction) {
  const bool in_double = accumulation_type(mean_a.scalar_type()) == at::kDouble;
  return (in_double ? backward<double> : backward<float>)(
      grad_loss, distance.contiguous(), mean_a, logvar_a, mean_b, logvar_b, labels, parse_reduction(reduction));
}

MCFA_REGISTER_KERNEL(mcfa_fast, CPU, WassersteinForward, wasserstein_forward_cpu)
MCFA_REGISTER_KERNEL(mcfa_fast, CPU, WassersteinBackward, wasserstein_backward_cpu)

}  // namespace
}  // namespace mcfa_fast
