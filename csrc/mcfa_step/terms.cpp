#include "terms.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "../common/simd.h"

namespace mcfa_fast {

using at::Tensor;

namespace {

// Work is cut along the columns, into blocks that do not depend on the number of threads; so neither do the sums.
constexpr int64_t kColumnsPerBlock = 64;
constexpr int64_t kElementsPerTask = 16384;
constexpr int64_t kRowsPerTask = 128;

namespace loops {

template <typename T>
MCFA_INLINE T sign(T value) {
  return static_cast<T>((value > T(0)) - (value < T(0)));
}

// sum |decoded - target|; `decoded` becomes scale * sign(decoded - target).
template <typename T>
MCFA_INLINE T absolute_error_(T* decoded, const T* target, T scale, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const T difference = decoded[i] - target[i];
    sum += difference < T(0) ? -difference : difference;
    decoded[i] = scale * sign(difference);
  }
  return sum;
}

// sum |row - target|; adds the signs to `signs`.
template <typename T>
MCFA_INLINE T absolute_error_signs(const T* row, const T* target, T* signs, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const T difference = row[i] - target[i];
    sum += difference < T(0) ? -difference : difference;
    signs[i] += sign(difference);
  }
  return sum;
}

template <typename T>
MCFA_INLINE void sample_row(const T* mean, const T* logvar, const T* noise, int64_t step, T power, int64_t n, T* out) {
#pragma omp simd
  for (int64_t d = 0; d < n; ++d) {
    out[d] = mean[d] + simd_exp(power * logvar[d]) * noise[d * step];
  }
}

template <typename T>
MCFA_INLINE T latent_row_gradients(
    const T* mean, const T* logvar, const T* noise, int64_t step, T power, const T* grad, T kl_weight, int64_t n,
    T* grad_mean, T* grad_logvar) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < n; ++d) {
    const T variance = simd_exp(logvar[d]);
    const T scale = power == T(1) ? variance : simd_exp(power * logvar[d]);
    sum += mean[d] * mean[d] + variance - T(1) - logvar[d];
    grad_mean[d] += grad[d] + kl_weight * mean[d];
    grad_logvar[d] += power * scale * noise[d * step] * grad[d] + T(0.5) * kl_weight * (variance - T(1));
  }
  return T(0.5) * sum;
}

}  // namespace loops

#define MCFA_INSTANTIATE_TERM_LOOPS(T)                                                                           \
  MCFA_SIMD_CLONES T absolute_error_(T* decoded, const T* target, T scale, int64_t n) {                          \
    return loops::absolute_error_(decoded, target, scale, n);                                                    \
  }                                                                                                              \
  MCFA_SIMD_CLONES T absolute_error_signs(const T* row, const T* target, T* signs, int64_t n) {                  \
    return loops::absolute_error_signs(row, target, signs, n);                                                   \
  }                                                                                                              \
  MCFA_SIMD_CLONES void sample_row(                                                                              \
      const T* mean, const T* logvar, const T* noise, int64_t step, T power, int64_t n, T* out) {                \
    loops::sample_row(mean, logvar, noise, step, power, n, out);                                                 \
  }                                                                                                              \
  MCFA_SIMD_CLONES T latent_row_gradients(                                                                       \
      const T* mean, const T* logvar, const T* noise, int64_t step, T power, const T* grad, T kl_weight, int64_t n, \
      T* grad_mean, T* grad_logvar) {                                                                            \
    return loops::latent_row_gradients(                                                                          \
        mean, logvar, noise, step, power, grad, kl_weight, n, grad_mean, grad_logvar);                           \
  }

MCFA_INSTANTIATE_TERM_LOOPS(float)
MCFA_INSTANTIATE_TERM_LOOPS(double)

// Sums what visit(first_column, columns) returns for every block of columns.
template <typename Visit>
Reconstruction over_columns(int64_t rows, int64_t columns, const Visit& visit) {
  const int64_t blocks = (columns + kColumnsPerBlock - 1) / kColumnsPerBlock;
  const int64_t grain = std::max<int64_t>(1, kElementsPerTask / (kColumnsPerBlock * std::max<int64_t>(rows, 1)));
  std::vector<Reconstruction> sums(blocks);
  at::parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t column = block * kColumnsPerBlock;
      sums[block] = visit(column, std::min(kColumnsPerBlock, columns - column));
    }
  });
  Reconstruction total;
  for (const auto& sum : sums) {
    total.own += sum.own;
    total.cross += sum.cross;
  }
  return total;
}

}  // namespace

Reconstruction visual_reconstruction_(
    const Tensor& decoded, const Tensor& features, const Tensor& labels, double own_weight, double cross_weight) {
  const int64_t instances = features.size(0);
  const int64_t classes = decoded.size(0) - instances;
  const int64_t width = features.size(1);
  const int64_t* label = labels.const_data_ptr<int64_t>();
  Reconstruction total;
  AT_DISPATCH_FLOATING_TYPES(decoded.scalar_type(), "visual_reconstruction_", [&] {
    scalar_t* instance_rows = decoded.mutable_data_ptr<scalar_t>();
    scalar_t* class_rows = instance_rows + instances * width;
    const scalar_t* target = features.const_data_ptr<scalar_t>();
    total = over_columns(instances, width, [&](int64_t column, int64_t n) {
      std::vector<scalar_t> signs(classes * n, scalar_t(0));
      Reconstruction sum;
      for (int64_t i = 0; i < instances; ++i) {
        const scalar_t* row = target + i * width + column;
        sum.own += absolute_error_(instance_rows + i * width + column, row, static_cast<scalar_t>(own_weight), n);
        sum.cross += absolute_error_signs(class_rows + label[i] * width + column, row, signs.data() + label[i] * n, n);
      }
      for (int64_t c = 0; c < classes; ++c) {
        for (int64_t k = 0; k < n; ++k) {
          class_rows[c * width + column + k] = static_cast<scalar_t>(cross_weight) * signs[c * n + k];
        }
      }
      return sum;
    });
  });
  return total;
}

Reconstruction semantic_reconstruction_(
    const Tensor& decoded, const Tensor& semantics, const Tensor& labels, const Tensor& class_weights,
    double own_weight, double cross_weight) {
  const int64_t instances = labels.size(0);
  const int64_t classes = semantics.size(0);
  const int64_t width = semantics.size(1);
  const int64_t* label = labels.const_data_ptr<int64_t>();
  Reconstruction total;
  AT_DISPATCH_FLOATING_TYPES(decoded.scalar_type(), "semantic_reconstruction_", [&] {
    scalar_t* instance_rows = decoded.mutable_data_ptr<scalar_t>();
    scalar_t* class_rows = instance_rows + instances * width;
    const scalar_t* target = semantics.const_data_ptr<scalar_t>();
    const scalar_t* weight = class_weights.const_data_ptr<scalar_t>();
    total = over_columns(instances + classes, width, [&](int64_t column, int64_t n) {
      Reconstruction sum;
      for (int64_t i = 0; i < instances; ++i) {
        sum.cross += absolute_error_(
            instance_rows + i * width + column, target + label[i] * width + column,
            static_cast<scalar_t>(cross_weight), n);
      }
      for (int64_t c = 0; c < classes; ++c) {
        const int64_t at = c * width + column;
        sum.own += weight[c] * absolute_error_(
            class_rows + at, target + at, static_cast<scalar_t>(own_weight) * weight[c], n);
      }
      return sum;
    });
  });
  return total;
}

void sample_latents(
    const Tensor& mean, const Tensor& logvar, const Tensor& noise, double power, const Tensor& latents) {
  const int64_t width = mean.size(1);
  const int64_t step = noise.size(1) == width ? 1 : 0;
  AT_DISPATCH_FLOATING_TYPES(mean.scalar_type(), "sample_latents", [&] {
    const scalar_t* m = mean.const_data_ptr<scalar_t>();
    const scalar_t* v = logvar.const_data_ptr<scalar_t>();
    const scalar_t* e = noise.const_data_ptr<scalar_t>();
    scalar_t* z = latents.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, mean.size(0), kRowsPerTask, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t at = row * width;
        sample_row(
            m + at, v + at, e + row * noise.size(1), step, static_cast<scalar_t>(power), width, z + at);
      }
    });
  });
}

double latent_gradients_(
    const Tensor& mean, const Tensor& logvar, const Tensor& noise, double power, const Tensor& grad_latents,
    const Tensor& weights, double kl_weight, const Tensor& grad_mean, const Tensor& grad_logvar) {
  const int64_t rows = mean.size(0);
  const int64_t width = mean.size(1);
  const int64_t step = noise.size(1) == width ? 1 : 0;
  std::vector<double> divergences(rows);
  AT_DISPATCH_FLOATING_TYPES(mean.scalar_type(), "latent_gradients_", [&] {
    const scalar_t* m = mean.const_data_ptr<scalar_t>();
    const scalar_t* v = logvar.const_data_ptr<scalar_t>();
    const scalar_t* e = noise.const_data_ptr<scalar_t>();
    const scalar_t* g = grad_latents.const_data_ptr<scalar_t>();
    const scalar_t* weight = weights.defined() ? weights.const_data_ptr<scalar_t>() : nullptr;
    scalar_t* gm = grad_mean.mutable_data_ptr<scalar_t>();
    scalar_t* gv = grad_logvar.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t at = row * width;
        const scalar_t count = weight == nullptr ? scalar_t(1) : weight[row];
        divergences[row] =
            count * latent_row_gradients(
                        m + at, v + at, e + row * noise.size(1), step, static_cast<scalar_t>(power), g + at,
                        count * static_cast<scalar_t>(kl_weight), width, gm + at, gv + at);
      }
    });
  });
  return std::accumulate(divergences.begin(), divergences.end(), 0.0);
}

}  // namespace mcfa_fast
