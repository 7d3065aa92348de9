// The Wasserstein alignment term of MCFA (Eq. 3); the rows of b are gathered by label where labels are given. What the
// devices implement and what they share.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>
#include <tuple>

#include "../common/operator.h"

namespace mcfa_fast {

struct WassersteinForward {
  static constexpr char kName[] = "wasserstein_forward";
  static constexpr char kSchema[] =
      "(Tensor mean_a, Tensor logvar_a, Tensor mean_b, Tensor logvar_b, Tensor? labels, str reduction) -> "
      "(Tensor loss, Tensor distance)";
  // The loss and the distances [N] that backward needs.
  using Result = std::tuple<at::Tensor, at::Tensor>;
  using Signature = Result(
      const at::Tensor& mean_a, const at::Tensor& logvar_a, const at::Tensor& mean_b, const at::Tensor& logvar_b,
      const std::optional<at::Tensor>& labels, std::string_view reduction);
  // All but the labels' values, which are checked where they are read.
  static void check(
      const at::Tensor& mean_a, const at::Tensor& logvar_a, const at::Tensor& mean_b, const at::Tensor& logvar_b,
      const std::optional<at::Tensor>& labels, std::string_view reduction);
};

struct WassersteinBackward {
  static constexpr char kName[] = "wasserstein_backward";
  static constexpr char kFunction[] = "wasserstein_alignment";
  static constexpr char kSchema[] =
      "(Tensor grad_loss, Tensor distance, Tensor mean_a, Tensor logvar_a, Tensor mean_b, Tensor logvar_b, "
      "Tensor? labels, str reduction) -> "
      "(Tensor grad_mean_a, Tensor grad_logvar_a, Tensor grad_mean_b, Tensor grad_logvar_b)";
  using Result = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
  using Signature = Result(
      const at::Tensor& grad_loss, const at::Tensor& distance, const at::Tensor& mean_a, const at::Tensor& logvar_a,
      const at::Tensor& mean_b, const at::Tensor& logvar_b, const std::optional<at::Tensor>& labels,
      std::string_view reduction);
  static void check(
      const at::Tensor& grad_loss, const at::Tensor& distance, const at::Tensor& mean_a, const at::Tensor& logvar_a,
      const at::Tensor& mean_b, const at::Tensor& logvar_b, const std::optional<at::Tensor>& labels,
      std::string_view reduction);
};

}  // namespace mcfa_fast
