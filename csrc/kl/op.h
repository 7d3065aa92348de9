// The KL term of MCFA's VAE loss (Eq. 1), the divergence of diagonal Gaussians from the unit Gaussian: what the devices
// implement and what they share.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>
#include <tuple>

#include "../common/operator.h"

namespace mcfa_fast {

struct KLForward {
  static constexpr char kName[] = "kl_forward";
  static constexpr char kSchema[] = "(Tensor mean, Tensor logvar, str reduction) -> Tensor loss";
  using Signature = at::Tensor(const at::Tensor& mean, const at::Tensor& logvar, std::string_view reduction);
  static void check(const at::Tensor& mean, const at::Tensor& logvar, std::string_view reduction);
};

struct KLBackward {
  static constexpr char kName[] = "kl_backward";
  static constexpr char kFunction[] = "kl_divergence";
  static constexpr char kSchema[] =
      "(Tensor grad_loss, Tensor mean, Tensor logvar, str reduction) -> (Tensor grad_mean, Tensor grad_logvar)";
  using Result = std::tuple<at::Tensor, at::Tensor>;
  using Signature = Result(
      const at::Tensor& grad_loss, const at::Tensor& mean, const at::Tensor& logvar, std::string_view reduction);
  static void check(
      const at::Tensor& grad_loss, const at::Tensor& mean, const at::Tensor& logvar, std::string_view reduction);
};

}  // namespace mcfa_fast
