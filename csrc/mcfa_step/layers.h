// The layers of a VAE of MCFA with their gradients, as those of common/linear.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>
#include <vector>

#include "../common/linear.h"

namespace mcfa_fast {

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
