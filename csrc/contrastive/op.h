// The contrastive losses of MCFA (Eqs. 4-6): what the devices implement and what they share.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>
#include <tuple>

#include "../common/checks.h"

namespace mcfa_fast {

enum class Positives { kOut, kIn };

Positives parse_positives(std::string_view positives);

// Losses and log-sum-exps of a forward pass. Losses are 0-dim, or per anchor for reduction "none". Log-sum-exps are
// in the accumulation dtype, 0 for rows that take no part, and of size 0 where a loss was not asked for:
// lse_vtov [N], lse_positives [N] (VtoV's positives, "in" form only), lse_vtos [N], lse_stov [C].
using ContrastiveForward =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// Gradients of visual, semantic and temperature; grad_semantic has size 0 without a semantic input. That of the
// temperature is on the device of `visual`, so that nothing waits for it: autograd moves it only where it is wanted.
using ContrastiveBackward = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

// Shapes, dtypes, devices and options; label values are checked where they are read.
void check_contrastive(
    const at::Tensor& visual, const std::optional<at::Tensor>& semantic, const at::Tensor& labels,
    const at::Tensor& temperature, bool vtov, bool vtos, bool stov);

// The value of a temperature on the CPU; raises ValueError unless it is positive and finite.
double read_temperature(const at::Tensor& temperature);

}  // namespace mcfa_fast
