// The layers of a VAE with their gradients. Tensors that forward() returns are valid until its next call; the
// parameters' gradients are set, not added to.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>
#include <vector>

namespace mcfa_fast {

// y = x W^T + b.
class Linear {
 public:
  Linear(const at::Tensor& weight, const at::Tensor& bias);

  // [rows, outputs]; its positive part with `relu`.
  const at::Tensor& forward(const at::Tensor& input, bool relu = false);

  // The gradients of the parameters, given that of the output [rows, outputs] for `input`.
  void backward(const at::Tensor& grad, const at::Tensor& input);

  // The gradient of the input [rows, inputs].
  at::Tensor backward_input(const at::Tensor& grad) const;

  // The same, added to `sum`.
  void add_backward_input(const at::Tensor& grad, const at::Tensor& sum) const;

  const at::Tensor& output() const {
    return output_;
  }
  int64_t outputs() const {
    return weight_.size(0);
  }

 private:
  at::Tensor weight_, bias_, output_;
};

// Linear-ReLU, then one linear head each for mean and log-variance.
class Encoder {
 public:
  // Weight and bias of the hidden layer, the mean's and the log-variance's.
  explicit Encoder(const std::vector<at::Tensor>& parameters);

  // Mean and log-variance [rows, D].
  std::pair<at::Tensor, at::Tensor> forward(const at::Tensor& features);

  void backward(const at::Tensor& grad_mean, const at::Tensor& grad_logvar, const at::Tensor& features);

  int64_t latent_features() const {
    return mean_.outputs();
  }

 private:
  Linear hidden_, mean_, logvar_;
};

// Linear-ReLU-Linear.
class Decoder {
 public:
  // Weight and bias of the first and the second layer.
  explicit Decoder(const std::vector<at::Tensor>& parameters);

  // [rows, features]; the caller may overwrite it.
  const at::Tensor& forward(const at::Tensor& latents);

  // Adds the gradient of the latents to `grad_latents`.
  void backward(const at::Tensor& grad, const at::Tensor& latents, const at::Tensor& grad_latents);

 private:
  Linear first_, second_;
};

}  // namespace mcfa_fast
