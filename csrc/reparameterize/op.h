// Samples mean + exp(power * logvar) * noise of a VAE's Gaussians from given noise: what the devices implement and what
// they share.
#pragma once

#include <ATen/core/Tensor.h>

#include "../common/operator.h"

namespace mcfa_fast {

struct ReparameterizeForward {
  static constexpr char kName[] = "reparameterize_forward";
  static constexpr char kSchema[] = "(Tensor mean, Tensor logvar, Tensor noise, float power) -> Tensor samples";
  // `noise` has an entry for each element of `mean` or for each row.
  using Signature = at::Tensor(
      const at::Tensor& mean, const at::Tensor& logvar, const at::Tensor& noise, double power);
  static void check(const at::Tensor& mean, const at::Tensor& logvar, const at::Tensor& noise, double power);
};

// The gradient of the means is that of the samples.
struct ReparameterizeBackward {
  static constexpr char kName[] = "reparameterize_backward";
  static constexpr char kFunction[] = "reparameterize";
  static constexpr char kSchema[] =
      "(Tensor grad_samples, Tensor logvar, Tensor noise, float power) -> Tensor grad_logvar";
  using Signature = at::Tensor(
      const at::Tensor& grad_samples, const at::Tensor& logvar, const at::Tensor& noise, double power);
  static void check(const at::Tensor& grad_samples, const at::Tensor& logvar, const at::Tensor& noise, double power);
};

}  // namespace mcfa_fast
