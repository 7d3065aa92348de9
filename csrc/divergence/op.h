// The KL term of MCFA's VAE loss (Eq. 1): what the devices implement and what they share.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>
#include <tuple>

#include "../common/checks.h"

namespace mcfa_fast {

// Gradients of mean and logvar.
using KLBackward = std::tuple<at::Tensor, at::Tensor>;

// Shapes, dtypes and devices.
void check_kl(const at::Tensor& mean, const at::Tensor& logvar);

}  // namespace mcfa_fast
