// Checks, shapes (Meta) and gradients (Autograd) of sampling from Gaussians.
#include "op.h"

#include <cmath>

namespace mcfa_fast {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// `first` is the means or, backward, the gradient of the samples.
void check_sampling(
    const Tensor& first, const char* name, const Tensor& logvar, const Tensor& noise, double power) {
  check_matrix(first, name, "[N, D]");
  check_floating(first, name);
  check_same_dtype(logvar, "logvar", first, name);
  check_same_device(logvar, "logvar", first, name);
  check_same_shape(logvar, "logvar", first, name);
  check_same_dtype(noise, "noise", first, name);
  check_same_device(noise, "noise", first, name);
  TORCH_CHECK_VALUE(
      noise.dim() == 2 && noise.sym_size(0) == first.sym_size(0) &&
          (noise.sym_size(1) == first.sym_size(1) || noise.sym_size(1) == 1),
      "expected `noise` to have the shape of `", name, "`, ", first.sym_sizes(), ", or one column, but got ",
      noise.sym_sizes());
  TORCH_CHECK_VALUE(
      std::isfinite(power) && power > 0, "expected `power` to be positive and finite, but got ", power);
}

}  // namespace

void ReparameterizeForward::check(const Tensor& mean, const Tensor& logvar, const Tensor& noise, double power) {
  check_sampling(mean, "mean", logvar, noise, power);
}

void ReparameterizeBackward::check(
    const Tensor& grad_samples, const Tensor& logvar, const Tensor& noise, double power) {
  check_sampling(grad_samples, "grad_samples", logvar, noise, power);
}

namespace {

// The shape of the samples and of either gradient.
Tensor reparameterize_meta(const Tensor& first, const Tensor&, const Tensor&, double) {
  return empty_like_contiguous(first);
}

class ReparameterizeFunction : public torch::autograd::Function<ReparameterizeFunction> {
 public:
  static Tensor forward(
      AutogradContext* ctx, const Tensor& mean, const Tensor& logvar, const Tensor& noise, double power) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({logvar, noise});
    ctx->saved_data["power"] = power;
    return Kernels<ReparameterizeForward>::call(mean, logvar, noise, power);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    Tensor grad_logvar;
    if (ctx->needs_input_grad(1)) {
      grad_logvar = Kernels<ReparameterizeBackward>::call(
          grads[0], saved[0], saved[1], ctx->saved_data["power"].toDouble());
    }
    return {grads[0], grad_logvar, Tensor(), Tensor()};
  }
};

// Better an error than a gradient that leaves a part out.
Tensor reparameterize_forward_autograd(
    const Tensor& mean, const Tensor& logvar, const Tensor& noise, double power) {
  TORCH_CHECK_VALUE(
      !(at::GradMode::is_enabled() && noise.requires_grad()),
      "expected `noise` not to require a gradient, for it gets none; detach it");
  return ReparameterizeFunction::apply(mean, logvar, noise, power);
}

MCFA_REGISTER_OPERATORS(
    ReparameterizeForward, ReparameterizeBackward, reparameterize_meta, reparameterize_meta,
    reparameterize_forward_autograd)

}  // namespace
}  // namespace mcfa_fast
