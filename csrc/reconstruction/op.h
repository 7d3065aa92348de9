// The L1 distance of rows from rows gathered by label, the reconstruction terms of MCFA (Eqs. 1-2): what the devices
// implement and what they share.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <string_view>
#include <tuple>

#include "../common/checks.h"

namespace mcfa_fast {

// Gradients of instances and table, and which of them are wanted; the others are undefined tensors.
using L1Backward = std::tuple<at::Tensor, at::Tensor>;
using L1Mask = std::array<bool, 2>;

// Shapes, dtypes and devices; label values are checked where they are read.
void check_l1(const at::Tensor& instances, const at::Tensor& table, const std::optional<at::Tensor>& labels);

}  // namespace mcfa_fast
