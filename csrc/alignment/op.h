// The Wasserstein alignment term of MCFA (Eq. 3): what the devices implement and what they share.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>
#include <tuple>

#include "../common/checks.h"

namespace mcfa_fast {

// The loss (0-dim, or [N] for reduction "none") and the distances [N] that backward needs.
using WassersteinForward = std::tuple<at::Tensor, at::Tensor>;

// Gradients of mean_a, logvar_a, mean_b and logvar_b.
using WassersteinBackward = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// Shapes, dtypes and devices; label values are checked where they are read.
void check_wasserstein(
    const at::Tensor& mean_a, const at::Tensor& logvar_a, const at::Tensor& mean_b, const at::Tensor& logvar_b,
    const std::optional<at::Tensor>& labels);

}  // namespace mcfa_fast
