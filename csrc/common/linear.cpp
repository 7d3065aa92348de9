#include "linear.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "matmul.h"
#include "simd.h"

namespace mcfa_fast {

using at::Tensor;

namespace {

constexpr int64_t kElementsPerTask = 32768;
constexpr int64_t kColumnsPerBlock = 64;

#define MCFA_INSTANTIATE_COLUMN_SUMS(T)                                                              \
  /* Sums of `width` adjacent columns, row after row: the order does not depend on the threads. */   \
  MCFA_SIMD_CLONES void column_sums_loop(const T* grad, int64_t rows, int64_t stride, int64_t width, T* sums) { \
    for (int64_t column = 0; column < width; ++column) {                                             \
      sums[column] = T(0);                                                                           \
    }                                                                                                \
    for (int64_t row = 0; row < rows; ++row) {                                                       \
      for (int64_t column = 0; column < width; ++column) {                                           \
        sums[column] += grad[row * stride + column];                                                 \
      }                                                                                              \
    }                                                                                                \
  }

MCFA_INSTANTIATE_COLUMN_SUMS(float)
MCFA_INSTANTIATE_COLUMN_SUMS(double)

Tensor column_sums(const Tensor& grad) {
  auto sums = at::empty({grad.size(1)}, grad.options());
  const int64_t rows = grad.size(0);
  const int64_t columns = grad.size(1);
  AT_DISPATCH_FLOATING_TYPES(grad.scalar_type(), "column_sums", [&] {
    const scalar_t* from = grad.const_data_ptr<scalar_t>();
    scalar_t* to = sums.mutable_data_ptr<scalar_t>();
    const int64_t blocks = (columns + kColumnsPerBlock - 1) / kColumnsPerBlock;
    const int64_t grain = std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, rows * kColumnsPerBlock));
    at::parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) {
      const int64_t first = begin * kColumnsPerBlock;
      const int64_t last = std::min(columns, end * kColumnsPerBlock);
      for (int64_t column = first; column < last; column += kColumnsPerBlock) {
        column_sums_loop(from + column, rows, columns, std::min(kColumnsPerBlock, last - column), to + column);
      }
    });
  });
  return sums;
}

}  // namespace

Linear::Linear(const Tensor& weight, const Tensor& bias) : weight_(weight), bias_(bias) {}

const Tensor& Linear::forward(const Tensor& input, bool relu) {
  output_ = linear(input, weight_, bias_, relu);
  return output_;
}

void Linear::backward(const Tensor& grad, const Tensor& input) {
  weight_.mutable_grad() = product(grad.t(), input);
  bias_.mutable_grad() = column_sums(grad);
}

Tensor Linear::backward_input(const Tensor& grad) const {
  return product(grad, weight_);
}

void Linear::add_backward_input(const Tensor& grad, const Tensor& sum) const {
  add_product_(sum, grad, weight_);
}

}  // namespace mcfa_fast
