// The reduction of per-row losses on the CPU, and its gradient. Sums run in float64, in the order of the rows.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>

#include "checks.h"

namespace mcfa_fast {

// What a sum is divided by: 1, or for a mean the number of rows that count (at least one).
inline double reduction_divisor(Reduction reduction, int64_t counted) {
  return reduction == Reduction::kMean ? static_cast<double>(std::max<int64_t>(counted, 1)) : 1.0;
}

// A 0-dim tensor. (at::full would go through the dispatcher twice.)
template <typename T>
at::Tensor scalar_tensor(double value, const at::TensorOptions& options) {
  auto result = at::empty({}, options);
  *result.template mutable_data_ptr<T>() = static_cast<T>(value);
  return result;
}

// `losses` [rows] of type T as they are, or their sum or mean.
template <typename T>
at::Tensor reduced(const at::Tensor& losses, Reduction reduction, int64_t counted) {
  if (reduction == Reduction::kNone) {
    return losses;
  }
  double total = 0;
  const T* value = losses.template const_data_ptr<T>();
  for (int64_t row = 0; row < losses.size(0); ++row) {
    total += value[row];
  }
  return scalar_tensor<T>(total / reduction_divisor(reduction, counted), losses.options());
}

// The gradient of each row's loss, from that of the reduced one.
template <typename T>
class RowGrads {
 public:
  // `counted`: the rows that a mean is over.
  RowGrads(const at::Tensor& grad_loss, Reduction reduction, int64_t counted)
      : values_(grad_loss.to(c10::CppTypeToScalarType<T>::value).contiguous()),
        data_(values_.template const_data_ptr<T>()),
        stride_(values_.dim()),
        scale_(static_cast<T>(1 / reduction_divisor(reduction, counted))) {}

  T operator[](int64_t row) const {
    return scale_ * data_[row * stride_];
  }

 private:
  at::Tensor values_;
  const T* data_;
  int64_t stride_;  // 0 for a reduced loss, 1 for one per row
  T scale_;
};

}  // namespace mcfa_fast
