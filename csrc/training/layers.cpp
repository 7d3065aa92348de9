#include "layers.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "../common/matmul.h"
#include "../common/simd.h"

namespace mcfa_fast {

using at::Tensor;

namespace {

constexpr int64_t kElementsPerTask = 32768;
constexpr int64_t kColumnsPerBlock = 64;

#define MCFA_INSTANTIATE_LAYER_LOOPS(T)                                                              \
  MCFA_SIMD_CLONES void mask_loop(const T* output, T* grad, int64_t n) {                             \
    for (int64_t i = 0; i < n; ++i) {                                                                \
      grad[i] = output[i] > T(0) ? grad[i] : T(0);                                                   \
    }                                                                                                \
  }                                                                                                  \
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

MCFA_INSTANTIATE_LAYER_LOOPS(float)
MCFA_INSTANTIATE_LAYER_LOOPS(double)

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

void relu_backward_(const Tensor& grad, const Tensor& output) {
  AT_DISPATCH_FLOATING_TYPES(grad.scalar_type(), "relu_backward_", [&] {
    const scalar_t* from = output.const_data_ptr<scalar_t>();
    scalar_t* to = grad.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, grad.numel(), kElementsPerTask, [&](int64_t begin, int64_t end) {
      mask_loop(from + begin, to + begin, end - begin);
    });
  });
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

Encoder::Encoder(const std::vector<Tensor>& parameters)
    : hidden_(parameters.at(0), parameters.at(1)),
      mean_(parameters.at(2), parameters.at(3)),
      logvar_(parameters.at(4), parameters.at(5)) {}

std::pair<Tensor, Tensor> Encoder::forward(const Tensor& features) {
  const Tensor& hidden = hidden_.forward(features, /*relu=*/true);
  return {mean_.forward(hidden), logvar_.forward(hidden)};
}

void Encoder::backward(const Tensor& grad_mean, const Tensor& grad_logvar, const Tensor& features) {
  const Tensor& hidden = hidden_.output();
  mean_.backward(grad_mean, hidden);
  logvar_.backward(grad_logvar, hidden);
  const Tensor grad_hidden = mean_.backward_input(grad_mean);
  logvar_.add_backward_input(grad_logvar, grad_hidden);
  relu_backward_(grad_hidden, hidden);
  hidden_.backward(grad_hidden, features);
}

Decoder::Decoder(const std::vector<Tensor>& parameters)
    : first_(parameters.at(0), parameters.at(1)), second_(parameters.at(2), parameters.at(3)) {}

const Tensor& Decoder::forward(const Tensor& latents) {
  return second_.forward(first_.forward(latents, /*relu=*/true));
}

void Decoder::backward(const Tensor& grad, const Tensor& latents, const Tensor& grad_latents) {
  const Tensor& hidden = first_.output();
  second_.backward(grad, hidden);
  const Tensor grad_hidden = second_.backward_input(grad);
  relu_backward_(grad_hidden, hidden);
  first_.backward(grad_hidden, latents);
  first_.add_backward_input(grad_hidden, grad_latents);
}

}  // namespace mcfa_fast
