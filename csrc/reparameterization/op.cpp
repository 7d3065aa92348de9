// Checks, shapes (Meta), gradients (Autograd) and dtype promotion (Autocast) of sampling from Gaussians.
#include "op.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cmath>

#include "../common/dispatch.h"

namespace mcfa_fast {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check_reparameterize(
    const Tensor& first, const char* name, const Tensor& logvar, const Tensor& noise, double power) {
  check_matrix(first, name, "[N, D]");
  check_floating(first, name);
  check_same_dtype(logvar, "logvar", first, name);
  check_same_device(logvar, "logvar", first, name);
  TORCH_CHECK_VALUE(
      logvar.sym_sizes() == first.sym_sizes(), "expected `logvar` to have the shape of `", name, "`, ",
      first.sym_sizes(), ", but got ", logvar.sym_sizes());
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

namespace {

using ForwardSignature = Tensor(const Tensor&, const Tensor&, const Tensor&, double);
using BackwardSignature = Tensor(const Tensor&, const Tensor&, const Tensor&, double);

Tensor call_forward(const Tensor& mean, const Tensor& logvar, const Tensor& noise, double power) {
  static const auto handle = operator_handle<ForwardSignature>("reparameterize_forward");
  return handle.call(mean, logvar, noise, power);
}

Tensor call_backward(const Tensor& grad_samples, const Tensor& logvar, const Tensor& noise, double power) {
  static const auto handle = operator_handle<BackwardSignature>("reparameterize_backward");
  return handle.call(grad_samples, logvar, noise, power);
}

Tensor reparameterize_forward_meta(const Tensor& mean, const Tensor& logvar, const Tensor& noise, double power) {
  check_reparameterize(mean, "mean", logvar, noise, power);
  return at::empty_symint(mean.sym_sizes(), mean.options());
}

Tensor reparameterize_backward_meta(
    const Tensor& grad_samples, const Tensor& logvar, const Tensor& noise, double power) {
  check_reparameterize(grad_samples, "grad_samples", logvar, noise, power);
  return at::empty_symint(logvar.sym_sizes(), logvar.options());
}

// A node whose only purpose is the error when someone differentiates the gradient.
class ReparameterizeBackwardFunction : public torch::autograd::Function<ReparameterizeBackwardFunction> {
 public:
  static Tensor forward(
      AutogradContext*, const Tensor& grad_samples, const Tensor& logvar, const Tensor& noise, double power) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_backward(grad_samples, logvar, noise, power);
  }

  static variable_list backward(AutogradContext*, const variable_list&) {
    throw_double_backward("reparameterize");
  }
};

Tensor reparameterize_backward_autograd(
    const Tensor& grad_samples, const Tensor& logvar, const Tensor& noise, double power) {
  return ReparameterizeBackwardFunction::apply(grad_samples, logvar, noise, power);
}

class ReparameterizeFunction : public torch::autograd::Function<ReparameterizeFunction> {
 public:
  static Tensor forward(
      AutogradContext* ctx, const Tensor& mean, const Tensor& logvar, const Tensor& noise, double power) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({logvar, noise});
    ctx->saved_data["power"] = power;
    return call_forward(mean, logvar, noise, power);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    Tensor grad_logvar;
    if (ctx->needs_input_grad(1)) {
      grad_logvar = call_backward(grads[0], saved[0], saved[1], ctx->saved_data["power"].toDouble());
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

// Under autocast, inputs of mixed precision are brought to the widest of their dtypes.
template <c10::DeviceType device>
Tensor reparameterize_forward_autocast(
    const Tensor& mean, const Tensor& logvar, const Tensor& noise, double power) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(at::autocast::get_autocast_dispatch_key_from_device_type(device));
  const auto type = widest_type({mean, logvar, noise});
  return call_forward(to_floating(mean, type), to_floating(logvar, type), to_floating(noise, type), power);
}

TORCH_LIBRARY_IMPL(mcfa_fast, Meta, m) {
  m.impl("reparameterize_forward", reparameterize_forward_meta);
  m.impl("reparameterize_backward", reparameterize_backward_meta);
}

TORCH_LIBRARY_IMPL(mcfa_fast, Autograd, m) {
  m.impl("reparameterize_forward", reparameterize_forward_autograd);
  m.impl("reparameterize_backward", reparameterize_backward_autograd);
}

TORCH_LIBRARY_IMPL(mcfa_fast, AutocastCPU, m) {
  m.impl("reparameterize_forward", reparameterize_forward_autocast<at::kCPU>);
}

TORCH_LIBRARY_IMPL(mcfa_fast, AutocastCUDA, m) {
  m.impl("reparameterize_forward", reparameterize_forward_autocast<at::kCUDA>);
}

}  // namespace
}  // namespace mcfa_fast
