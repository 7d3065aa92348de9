// The reduction of per-row losses on the CPU. Sums run in float64, in the order of the rows.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>

#include "checks.h"

namespace mcfa_fast {

// What a sum is divided by: 1, or for a mean the number of rows that count (at least one).
inline double reduction_divisor(Reduction reduction, int64_t counted) {
  return reduction == Reduction::kMean ? static_cast<double>(std::max<int64_t>(counted, 1)) : 1.0;
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
  return at::full({}, total / reduction_divisor(reduction, counted), losses.options());
}

}  // namespace mcfa_fast
