#include "layers.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include "../common/simd.h"

namespace mcfa_fast {

using at::Tensor;

namespace {

constexpr int64_t kElementsPerTask = 32768;

#define MCFA_INSTANTIATE_MASK_LOOP(T)                                                                \
  MCFA_SIMD_CLONES void mask_loop(const T* output, T* grad, int64_t n) {                             \
    for (int64_t i = 0; i < n; ++i) {                                                                \
      grad[i] = output[i] > T(0) ? grad[i] : T(0);                                                   \
    }                                                                                                \
  }

MCFA_INSTANTIATE_MASK_LOOP(float)
MCFA_INSTANTIATE_MASK_LOOP(double)

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
