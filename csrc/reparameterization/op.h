// The samples of a VAE's Gaussians from given noise: what the devices implement and what they share.
#pragma once

#include <ATen/core/Tensor.h>

#include "../common/checks.h"

namespace mcfa_fast {

// Shapes, dtypes, devices and the range of `power`. `first` [N, D] is the means, or in backward the samples' gradient;
// `noise` has an entry for each element or for each row.
void check_reparameterize(
    const at::Tensor& first, const char* name, const at::Tensor& logvar, const at::Tensor& noise, double power);

}  // namespace mcfa_fast
