// Checks, shapes (Meta), gradients (Autograd) and dtype promotion (Autocast) of the KL divergence.
#include "op.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "../common/dispatch.h"

namespace mcfa_fast {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check_kl(const Tensor& mean, const Tensor& logvar) {
  check_matrix(mean, "mean", "[N, D]");
  check_floating(mean, "mean");
  check_same_dtype(logvar, "logvar", mean, "mean");
  check_same_device(logvar, "logvar", mean, "mean");
  TORCH_CHECK_VALUE(
      logvar.sym_sizes() == mean.sym_sizes(), "expected `logvar` to have the shape of `mean`, ", mean.sym_sizes(),
      ", but got ", logvar.sym_sizes());
}

namespace {

using ForwardSignature = Tensor(const Tensor&, const Tensor&, std::string_view);
using BackwardSignature = KLBackward(const Tensor&, const Tensor&, const Tensor&, std::string_view);

Tensor call_forward(const Tensor& mean, const Tensor& logvar, std::string_view reduction) {
  static const auto handle = operator_handle<ForwardSignature>("kl_forward");
  return handle.call(mean, logvar, reduction);
}

KLBackward call_backward(
    const Tensor& grad_loss, const Tensor& mean, const Tensor& logvar, std::string_view reduction) {
  static const auto handle = operator_handle<BackwardSignature>("kl_backward");
  return handle.call(grad_loss, mean, logvar, reduction);
}

Tensor kl_forward_meta(const Tensor& mean, const Tensor& logvar, std::string_view reduction) {
  check_kl(mean, logvar);
  const auto options = mean.options().dtype(accumulation_type(mean.scalar_type()));
  const bool none = parse_reduction(reduction) == Reduction::kNone;
  return none ? at::empty_symint({mean.sym_size(0)}, options) : at::empty({}, options);
}

KLBackward kl_backward_meta(const Tensor&, const Tensor& mean, const Tensor& logvar, std::string_view) {
  return {
      at::empty_symint(mean.sym_sizes(), mean.options()), at::empty_symint(logvar.sym_sizes(), logvar.options())};
}

// A node whose only purpose is the error when someone differentiates the gradient.
class KLBackwardFunction : public torch::autograd::Function<KLBackwardFunction> {
 public:
  static variable_list forward(
      AutogradContext*, const Tensor& grad_loss, const Tensor& mean, const Tensor& logvar,
      std::string_view reduction) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [grad_mean, grad_logvar] = call_backward(grad_loss, mean, logvar, reduction);
    return {grad_mean, grad_logvar};
  }

  static variable_list backward(AutogradContext*, const variable_list&) {
    throw_double_backward("kl_divergence");
  }
};

KLBackward kl_backward_autograd(
    const Tensor& grad_loss, const Tensor& mean, const Tensor& logvar, std::string_view reduction) {
  const auto grads = KLBackwardFunction::apply(grad_loss, mean, logvar, reduction);
  return {grads[0], grads[1]};
}

class KLFunction : public torch::autograd::Function<KLFunction> {
 public:
  static Tensor forward(
      AutogradContext* ctx, const Tensor& mean, const Tensor& logvar, std::string_view reduction) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({mean, logvar});
    ctx->saved_data["reduction"] = std::string(reduction);
    return call_forward(mean, logvar, reduction);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_mean, grad_logvar] =
        call_backward(grads[0], saved[0], saved[1], ctx->saved_data["reduction"].toStringView());
    return {grad_mean, grad_logvar, Tensor()};
  }
};

Tensor kl_forward_autograd(const Tensor& mean, const Tensor& logvar, std::string_view reduction) {
  return KLFunction::apply(mean, logvar, reduction);
}

// Under autocast, inputs of mixed precision are brought to the wider of their dtypes; sums are float32 anyway.
template <c10::DeviceType device>
Tensor kl_forward_autocast(const Tensor& mean, const Tensor& logvar, std::string_view reduction) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(at::autocast::get_autocast_dispatch_key_from_device_type(device));
  const auto type = widest_type({mean, logvar});
  return call_forward(to_floating(mean, type), to_floating(logvar, type), reduction);
}

TORCH_LIBRARY_IMPL(mcfa_fast, Meta, m) {
  m.impl("kl_forward", kl_forward_meta);
  m.impl("kl_backward", kl_backward_meta);
}

TORCH_LIBRARY_IMPL(mcfa_fast, Autograd, m) {
  m.impl("kl_forward", kl_forward_autograd);
  m.impl("kl_backward", kl_backward_autograd);
}

TORCH_LIBRARY_IMPL(mcfa_fast, AutocastCPU, m) {
  m.impl("kl_forward", kl_forward_autocast<at::kCPU>);
}

TORCH_LIBRARY_IMPL(mcfa_fast, AutocastCUDA, m) {
  m.impl("kl_forward", kl_forward_autocast<at::kCUDA>);
}

}  // namespace
}  // namespace mcfa_fast
