// A batch made ready for the CPU kernels: latents in the order of the sorted labels, normalised, in the
// accumulation dtype; and what is summed over a class's contiguous rows.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "../../common/labels.h"
#include "rows.h"

namespace mcfa_fast {

constexpr int64_t kRowsPerTask = 512;

// Latents x as rows u = x / max(|x|, 1e-12), or u = x without normalisation.
template <typename T>
class Latents {
 public:
  // Row k is row order[k] of `input`.
  Latents(const at::Tensor& input, const std::vector<int64_t>& order, bool normalize)
      : Latents(input, order.data(), static_cast<int64_t>(order.size()), normalize) {}

  Latents(const at::Tensor& input, const int64_t* order, int64_t count, bool normalize)
      : normalized_(normalize),
        inverse_norms_(count, T(1)),
        values_(at::empty({count, input.size(1)}, input.options().dtype(c10::CppTypeToScalarType<T>::value))) {
    // Other dtypes and layouts are brought into order first, these rows of them alone.
    const bool ready = input.scalar_type() == values_.scalar_type() && input.is_contiguous();
    const auto source = ready ? input : input.index_select(0, indices(order, count)).to(values_.scalar_type());
    const T* from = source.template const_data_ptr<T>();
    T* to = values_.template mutable_data_ptr<T>();
    const int64_t width = columns();
    at::parallel_for(0, rows(), kRowsPerTask, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const T* x = from + (ready ? order[row] : row) * width;
        if (normalize) {
          inverse_norms_[row] = 1 / std::max(std::sqrt(dot_row(x, x, width)), kSmallestNorm);
        }
        for (int64_t d = 0; d < width; ++d) {
          to[row * width + d] = x[d] * inverse_norms_[row];
        }
      }
    });
  }

  // Every row of `input`, in place.
  Latents(const at::Tensor& input, bool normalize) : Latents(input, identity(input.size(0)), normalize) {}

  int64_t rows() const {
    return values_.size(0);
  }
  int64_t columns() const {
    return values_.size(1);
  }
  const at::Tensor& values() const {
    return values_;
  }
  const T* row(int64_t index) const {
    return values_.template const_data_ptr<T>() + index * columns();
  }

  // The gradient with respect to the input row, from `grad` with respect to u: (grad - u (u.grad)) / |x|.
  void pull_back(int64_t index, const T* grad, T* grad_input) const {
    const T* u = row(index);
    const T inverse = inverse_norms_[index];
    const bool on_sphere = normalized_ && inverse < 1 / kSmallestNorm;
    const T along = on_sphere ? dot_row(u, grad, columns()) : T(0);
    for (int64_t d = 0; d < columns(); ++d) {
      grad_input[d] = (grad[d] - u[d] * along) * inverse;
    }
  }

 private:
  static constexpr T kSmallestNorm = T(1e-12);

  static at::Tensor indices(const int64_t* order, int64_t count) {
    return at::from_blob(const_cast<int64_t*>(order), {count}, at::kLong);
  }
  static std::vector<int64_t> identity(int64_t size) {
    std::vector<int64_t> order(size);
    std::iota(order.begin(), order.end(), 0);
    return order;
  }

  bool normalized_;
  std::vector<T> inverse_norms_;
  at::Tensor values_;
};

// The anchors that count in VtoV; in VtoS all instances do, in StoV all classes with an instance.
inline int64_t instances_with_positive(const SortedLabels& labels) {
  int64_t count = 0;
  for (const auto& run : labels.runs) {
    count += run.size() > 1 ? run.size() : 0;
  }
  return count;
}

// Sum of u over the rows of a class, each times its weight (1 without weights).
template <typename T>
std::vector<T> class_sum(const Latents<T>& latents, const ClassRun& run, const T* weights = nullptr) {
  std::vector<T> sum(latents.columns(), T(0));
  for (int64_t row = run.begin; row < run.end; ++row) {
    add_scaled_row(sum.data(), latents.row(row), latents.columns(), weights == nullptr ? T(1) : weights[row]);
  }
  return sum;
}

// The dot products v_i · s_{y_i}.
template <typename T>
std::vector<T> own_class_products(const Latents<T>& visual, const Latents<T>& semantic, const SortedLabels& labels) {
  std::vector<T> products(visual.rows());
  at::parallel_for(0, visual.rows(), kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      products[row] = dot_row(visual.row(row), semantic.row(labels.run(row).label), visual.columns());
    }
  });
  return products;
}

// log-sum-exp of scale * products over a class's rows.
template <typename T>
T class_log_sum_exp(const std::vector<T>& products, const ClassRun& run, T scale) {
  const T* first = products.data() + run.begin;
  const T largest = scale * max_row(first, run.size());
  return largest + std::log(exp_sum_row(first, run.size(), scale, largest));
}

}  // namespace mcfa_fast
