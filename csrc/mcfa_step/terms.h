// The terms of the objective that need no product of matrices, with their gradients.
#pragma once

#include <ATen/core/Tensor.h>

namespace mcfa_fast {

// Sums of absolute differences: of rows with their own target, and of rows across the modalities.
struct Reconstruction {
  double own = 0;
  double cross = 0;
};

// Visual side (Eqs. 1 and 2): `decoded` [N+C, F] holds the instances' reconstructions and then one from each class's
// latent, `features` [N, F] the targets, `labels` [N] the class of each. Overwrites `decoded` by its gradient, in which
// own errors count `own_weight` times and those across the modalities `cross_weight` times.
Reconstruction visual_reconstruction_(
    const at::Tensor& decoded, const at::Tensor& features, const at::Tensor& labels, double own_weight,
    double cross_weight);

// The same of the semantic side: `decoded` [N+C, A], targets `semantics` [C, A]; class c's own error counts
// `class_weights` [C] times.
Reconstruction semantic_reconstruction_(
    const at::Tensor& decoded, const at::Tensor& semantics, const at::Tensor& labels, const at::Tensor& class_weights,
    double own_weight, double cross_weight);

// z = mean + exp(power logvar) noise, with noise [rows, D] or [rows, 1], written to `latents` [rows, D].
void sample_latents(
    const at::Tensor& mean, const at::Tensor& logvar, const at::Tensor& noise, double power, const at::Tensor& latents);

// KL divergence from the unit Gaussian (Eq. 1), row r counted `weights[r]` times (once if undefined). Adds to
// `grad_mean` and `grad_logvar` [rows, D] its gradient times `kl_weight`, and that of the latents [rows, D].
double latent_gradients_(
    const at::Tensor& mean, const at::Tensor& logvar, const at::Tensor& noise, double power,
    const at::Tensor& grad_latents, const at::Tensor& weights, double kl_weight, const at::Tensor& grad_mean,
    const at::Tensor& grad_logvar);

}  // namespace mcfa_fast
