// Checks, shapes (Meta), gradients (Autograd) and dtype promotion (Autocast) of the Wasserstein alignment.
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
using OptionalTensor = std::optional<Tensor>;

void check_wasserstein(
    const Tensor& mean_a, const Tensor& logvar_a, const Tensor& mean_b, const Tensor& logvar_b,
    const OptionalTensor& labels) {
  check_matrix(mean_a, "mean_a", "[N, D]");
  check_floating(mean_a, "mean_a");
  check_matrix(mean_b, "mean_b", labels ? "[C, D]" : "[N, D]");
  const auto check_like = [&](const Tensor& tensor, const char* name, const Tensor& shape_of, const char* shape_name) {
    check_same_dtype(tensor, name, mean_a, "mean_a");
    check_same_device(tensor, name, mean_a, "mean_a");
    TORCH_CHECK_VALUE(
        tensor.sym_sizes() == shape_of.sym_sizes(), "expected `", name, "` to have the shape of `", shape_name, "`, ",
        shape_of.sym_sizes(), ", but got ", tensor.sym_sizes());
  };
  check_like(logvar_a, "logvar_a", mean_a, "mean_a");
  check_like(logvar_b, "logvar_b", mean_b, "mean_b");
  if (labels) {
    check_same_dtype(mean_b, "mean_b", mean_a, "mean_a");
    check_same_device(mean_b, "mean_b", mean_a, "mean_a");
    TORCH_CHECK_VALUE(
        mean_b.sym_size(1) == mean_a.sym_size(1), "expected `mean_b` to have D = ", mean_a.sym_size(1),
        " columns, as many as `mean_a`, but got ", mean_b.sym_sizes());
    check_labels(*labels, mean_a, "mean_a");
  } else {
    check_like(mean_b, "mean_b", mean_a, "mean_a");
  }
}

namespace {

using ForwardSignature = WassersteinForward(
    const Tensor&, const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&, std::string_view);
using BackwardSignature = WassersteinBackward(
    const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&,
    std::string_view);

WassersteinForward call_forward(
    const Tensor& mean_a, const Tensor& logvar_a, const Tensor& mean_b, const Tensor& logvar_b,
    const OptionalTensor& labels, std::string_view reduction) {
  static const auto handle = operator_handle<ForwardSignature>("wasserstein_forward");
  return handle.call(mean_a, logvar_a, mean_b, logvar_b, labels, reduction);
}

WassersteinBackward call_backward(
    const Tensor& grad_loss, const Tensor& distance, const Tensor& mean_a, const Tensor& logvar_a,
    const Tensor& mean_b, const Tensor& logvar_b, const OptionalTensor& labels, std::string_view reduction) {
  static const auto handle = operator_handle<BackwardSignature>("wasserstein_backward");
  return handle.call(grad_loss, distance, mean_a, logvar_a, mean_b, logvar_b, labels, reduction);
}

WassersteinForward wasserstein_forward_meta(
    const Tensor& mean_a, const Tensor& logvar_a, const Tensor& mean_b, const Tensor& logvar_b,
    const OptionalTensor& labels, std::string_view reduction) {
  check_wasserstein(mean_a, logvar_a, mean_b, logvar_b, labels);
  const auto options = mean_a.options().dtype(accumulation_type(mean_a.scalar_type()));
  const auto distance = at::empty_symint({mean_a.sym_size(0)}, options);
  const bool none = parse_reduction(reduction) == Reduction::kNone;
  return {none ? at::empty_like(distance) : at::empty({}, options), distance};
}

WassersteinBackward wasserstein_backward_meta(
    const Tensor&, const Tensor&, const Tensor& mean_a, const Tensor& logvar_a, const Tensor& mean_b,
    const Tensor& logvar_b, const OptionalTensor&, std::string_view) {
  const auto like = [](const Tensor& tensor) { return at::empty_symint(tensor.sym_sizes(), tensor.options()); };
  return {like(mean_a), like(logvar_a), like(mean_b), like(logvar_b)};
}

// A node whose only purpose is the error when someone differentiates the gradient.
class WassersteinBackwardFunction : public torch::autograd::Function<WassersteinBackwardFunction> {
 public:
  static variable_list forward(
      AutogradContext*, const Tensor& grad_loss, const Tensor& distance, const Tensor& mean_a, const Tensor& logvar_a,
      const Tensor& mean_b, const Tensor& logvar_b, const OptionalTensor& labels, std::string_view reduction) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [grad_mean_a, grad_logvar_a, grad_mean_b, grad_logvar_b] =
        call_backward(grad_loss, distance, mean_a, logvar_a, mean_b, logvar_b, labels, reduction);
    return {grad_mean_a, grad_logvar_a, grad_mean_b, grad_logvar_b};
  }

  static variable_list backward(AutogradContext*, const variable_list&) {
    throw_double_backward("wasserstein_alignment");
  }
};

WassersteinBackward wasserstein_backward_autograd(
    const Tensor& grad_loss, const Tensor& distance, const Tensor& mean_a, const Tensor& logvar_a,
    const Tensor& mean_b, const Tensor& logvar_b, const OptionalTensor& labels, std::string_view reduction) {
  const auto grads =
      WassersteinBackwardFunction::apply(grad_loss, distance, mean_a, logvar_a, mean_b, logvar_b, labels, reduction);
  return {grads[0], grads[1], grads[2], grads[3]};
}

class WassersteinFunction : public torch::autograd::Function<WassersteinFunction> {
 public:
  static variable_list forward(
      AutogradContext* ctx, const Tensor& mean_a, const Tensor& logvar_a, const Tensor& mean_b,
      const Tensor& logvar_b, const OptionalTensor& labels, std::string_view reduction) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [loss, distance] = call_forward(mean_a, logvar_a, mean_b, logvar_b, labels, reduction);
    ctx->save_for_backward({distance, mean_a, logvar_a, mean_b, logvar_b, labels.value_or(Tensor())});
    ctx->mark_non_differentiable({distance});
    ctx->set_materialize_grads(false);
    ctx->saved_data["reduction"] = std::string(reduction);
    return {loss, distance};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list result(6);
    if (!grads[0].defined()) {
      return result;
    }
    const auto saved = ctx->get_saved_variables();
    auto [grad_mean_a, grad_logvar_a, grad_mean_b, grad_logvar_b] = call_backward(
        grads[0], saved[0], saved[1], saved[2], saved[3], saved[4], defined(saved[5]),
        ctx->saved_data["reduction"].toStringView());
    result[0] = grad_mean_a;
    result[1] = grad_logvar_a;
    result[2] = grad_mean_b;
    result[3] = grad_logvar_b;
    return result;
  }
};

WassersteinForward wasserstein_forward_autograd(
    const Tensor& mean_a, const Tensor& logvar_a, const Tensor& mean_b, const Tensor& logvar_b,
    const OptionalTensor& labels, std::string_view reduction) {
  const auto out = WassersteinFunction::apply(mean_a, logvar_a, mean_b, logvar_b, labels, reduction);
  return {out[0], out[1]};
}

// Under autocast, inputs of mixed precision are brought to the widest of their dtypes; sums are float32 anyway.
template <c10::DeviceType device>
WassersteinForward wasserstein_forward_autocast(
    const Tensor& mean_a, const Tensor& logvar_a, const Tensor& mean_b, const Tensor& logvar_b,
    const OptionalTensor& labels, std::string_view reduction) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(at::autocast::get_autocast_dispatch_key_from_device_type(device));
  const auto type = widest_type({mean_a, logvar_a, mean_b, logvar_b});
  return call_forward(
      to_floating(mean_a, type), to_floating(logvar_a, type), to_floating(mean_b, type), to_floating(logvar_b, type),
      labels, reduction);
}

TORCH_LIBRARY_IMPL(mcfa_fast, Meta, m) {
  m.impl("wasserstein_forward", wasserstein_forward_meta);
  m.impl("wasserstein_backward", wasserstein_backward_meta);
}

TORCH_LIBRARY_IMPL(mcfa_fast, Autograd, m) {
  m.impl("wasserstein_forward", wasserstein_forward_autograd);
  m.impl("wasserstein_backward", wasserstein_backward_autograd);
}

TORCH_LIBRARY_IMPL(mcfa_fast, AutocastCPU, m) {
  m.impl("wasserstein_forward", wasserstein_forward_autocast<at::kCPU>);
}

TORCH_LIBRARY_IMPL(mcfa_fast, AutocastCUDA, m) {
  m.impl("wasserstein_forward", wasserstein_forward_autocast<at::kCUDA>);
}

}  // namespace
}  // namespace mcfa_fast
