// Checks, shapes (Meta), gradients (Autograd) and dtype promotion (Autocast) of the contrastive losses.
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
using OptionalTensor = std::optional<Tensor>;

Positives parse_positives(std::string_view positives) {
  TORCH_CHECK_VALUE(
      positives == "out" || positives == "in", "expected `positives` to be 'out' or 'in', but got '", positives, "'");
  return positives == "out" ? Positives::kOut : Positives::kIn;
}

void check_contrastive(
    const Tensor& visual, const OptionalTensor& semantic, const Tensor& labels, const Tensor& temperature, bool vtov,
    bool vtos, bool stov) {
  TORCH_CHECK_VALUE(vtov || vtos || stov, "expected at least one of `vtov`, `vtos` and `stov` to be asked for");
  check_matrix(visual, "visual", "[N, D]");
  check_floating(visual, "visual");
  check_labels(labels, visual, "visual");
  TORCH_CHECK_VALUE(
      semantic.has_value() || !(vtos || stov), "expected `semantic` of shape [C, D] for the VtoS and StoV losses, but got None");
  if (semantic) {
    check_matrix(*semantic, "semantic", "[C, D]");
    check_same_dtype(*semantic, "semantic", visual, "visual");
    check_same_device(*semantic, "semantic", visual, "visual");
    TORCH_CHECK_VALUE(
        semantic->sym_size(1) == visual.sym_size(1), "expected `semantic` to have D = ", visual.sym_size(1),
        " columns, as many as `visual`, but got ", semantic->sym_sizes());
  }
  check_floating(temperature, "temperature");
  TORCH_CHECK_VALUE(
      temperature.dim() == 0, "expected `temperature` to be a number or a tensor without dimensions, but got shape ",
      temperature.sym_sizes());
  TORCH_CHECK_VALUE(
      temperature.device() == visual.device() || temperature.device().is_cpu(),
      "expected `temperature` on the CPU or on the device of `visual` (", visual.device(), "), but got ",
      temperature.device());
}

double read_temperature(const Tensor& temperature) {
  const double value = temperature.item<double>();
  TORCH_CHECK_VALUE(value > 0 && std::isfinite(value), "expected `temperature` to be positive and finite, but got ", value);
  return value;
}

namespace {

using ForwardSignature = ContrastiveForward(
    const Tensor&, const OptionalTensor&, const Tensor&, const Tensor&, bool, bool, bool, std::string_view,
    std::string_view, bool, int64_t);
using BackwardSignature = ContrastiveBackward(
    const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const Tensor&, const OptionalTensor&,
    const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, std::string_view,
    std::string_view, bool, int64_t);

ContrastiveForward call_forward(
    const Tensor& visual, const OptionalTensor& semantic, const Tensor& labels, const Tensor& temperature, bool vtov,
    bool vtos, bool stov, std::string_view positives, std::string_view reduction, bool normalize,
    int64_t ignore_index) {
  static const auto handle = operator_handle<ForwardSignature>("contrastive_forward");
  return handle.call(
      visual, semantic, labels, temperature, vtov, vtos, stov, positives, reduction, normalize, ignore_index);
}

ContrastiveBackward call_backward(
    const OptionalTensor& grad_vtov, const OptionalTensor& grad_vtos, const OptionalTensor& grad_stov,
    const Tensor& visual, const OptionalTensor& semantic, const Tensor& labels, const Tensor& temperature,
    const Tensor& lse_vtov, const Tensor& lse_positives, const Tensor& lse_vtos, const Tensor& lse_stov,
    std::string_view positives, std::string_view reduction, bool normalize, int64_t ignore_index) {
  static const auto handle = operator_handle<BackwardSignature>("contrastive_backward");
  return handle.call(
      grad_vtov, grad_vtos, grad_stov, visual, semantic, labels, temperature, lse_vtov, lse_positives, lse_vtos,
      lse_stov, positives, reduction, normalize, ignore_index);
}

ContrastiveForward contrastive_forward_meta(
    const Tensor& visual, const OptionalTensor& semantic, const Tensor& labels, const Tensor& temperature, bool vtov,
    bool vtos, bool stov, std::string_view positives, std::string_view reduction, bool normalize,
    int64_t ignore_index) {
  check_contrastive(visual, semantic, labels, temperature, vtov, vtos, stov);
  const bool in_form = parse_positives(positives) == Positives::kIn;
  const bool none = parse_reduction(reduction) == Reduction::kNone;
  const auto options = visual.options().dtype(accumulation_type(visual.scalar_type()));
  const c10::SymInt instances = visual.sym_size(0);
  const c10::SymInt classes = semantic ? semantic->sym_size(0) : c10::SymInt(0);
  const auto loss = [&](bool wanted, const c10::SymInt& anchors) {
    return wanted && none ? at::empty_symint({anchors}, options) : at::empty({}, options);
  };
  const auto lse = [&](bool wanted, const c10::SymInt& anchors) {
    return at::empty_symint({wanted ? anchors : c10::SymInt(0)}, options);
  };
  return {loss(vtov, instances),          loss(vtos, instances), loss(stov, classes),
          lse(vtov, instances),           lse(vtov && in_form, instances),
          lse(vtos, instances),           lse(stov, classes)};
}

ContrastiveBackward contrastive_backward_meta(
    const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const Tensor& visual,
    const OptionalTensor& semantic, const Tensor&, const Tensor& temperature, const Tensor&, const Tensor&,
    const Tensor&, const Tensor&, std::string_view, std::string_view, bool, int64_t) {
  const auto grad_semantic =
      semantic ? at::empty_symint(semantic->sym_sizes(), semantic->options()) : at::empty({0}, visual.options());
  return {
      at::empty_symint(visual.sym_sizes(), visual.options()), grad_semantic,
      at::empty({}, visual.options().dtype(temperature.dtype()))};
}

// A node whose only purpose is the error when someone differentiates the gradient.
class ContrastiveBackwardFunction : public torch::autograd::Function<ContrastiveBackwardFunction> {
 public:
  static variable_list forward(
      AutogradContext*, const OptionalTensor& grad_vtov, const OptionalTensor& grad_vtos,
      const OptionalTensor& grad_stov, const Tensor& visual, const OptionalTensor& semantic, const Tensor& labels,
      const Tensor& temperature, const Tensor& lse_vtov, const Tensor& lse_positives, const Tensor& lse_vtos,
      const Tensor& lse_stov, std::string_view positives, std::string_view reduction, bool normalize,
      int64_t ignore_index) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [grad_visual, grad_semantic, grad_temperature] = call_backward(
        grad_vtov, grad_vtos, grad_stov, visual, semantic, labels, temperature, lse_vtov, lse_positives, lse_vtos,
        lse_stov, positives, reduction, normalize, ignore_index);
    return {grad_visual, grad_semantic, grad_temperature};
  }

  static variable_list backward(AutogradContext*, const variable_list&) {
    throw_double_backward("contrastive losses");
  }
};

ContrastiveBackward contrastive_backward_autograd(
    const OptionalTensor& grad_vtov, const OptionalTensor& grad_vtos, const OptionalTensor& grad_stov,
    const Tensor& visual, const OptionalTensor& semantic, const Tensor& labels, const Tensor& temperature,
    const Tensor& lse_vtov, const Tensor& lse_positives, const Tensor& lse_vtos, const Tensor& lse_stov,
    std::string_view positives, std::string_view reduction, bool normalize, int64_t ignore_index) {
  const auto grads = ContrastiveBackwardFunction::apply(
      grad_vtov, grad_vtos, grad_stov, visual, semantic, labels, temperature, lse_vtov, lse_positives, lse_vtos,
      lse_stov, positives, reduction, normalize, ignore_index);
  return {grads[0], grads[1], grads[2]};
}

class ContrastiveFunction : public torch::autograd::Function<ContrastiveFunction> {
 public:
  static variable_list forward(
      AutogradContext* ctx, const Tensor& visual, const OptionalTensor& semantic, const Tensor& labels,
      const Tensor& temperature, bool vtov, bool vtos, bool stov, std::string_view positives,
      std::string_view reduction, bool normalize, int64_t ignore_index) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [loss_vtov, loss_vtos, loss_stov, lse_vtov, lse_positives, lse_vtos, lse_stov] = call_forward(
        visual, semantic, labels, temperature, vtov, vtos, stov, positives, reduction, normalize, ignore_index);
    ctx->save_for_backward(
        {visual, semantic.value_or(Tensor()), labels, temperature, lse_vtov, lse_positives, lse_vtos, lse_stov});
    ctx->mark_non_differentiable({lse_vtov, lse_positives, lse_vtos, lse_stov});
    ctx->set_materialize_grads(false);
    ctx->saved_data["wanted"] = std::vector<bool>{vtov, vtos, stov};
    ctx->saved_data["positives"] = std::string(positives);
    ctx->saved_data["reduction"] = std::string(reduction);
    ctx->saved_data["normalize"] = normalize;
    ctx->saved_data["ignore_index"] = ignore_index;
    return {loss_vtov, loss_vtos, loss_stov, lse_vtov, lse_positives, lse_vtos, lse_stov};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto& semantic = saved[1];
    const auto wanted = ctx->saved_data["wanted"].toBoolList();
    const auto grad = [&](size_t loss) { return wanted.get(loss) ? defined(grads[loss]) : std::nullopt; };
    variable_list result(11);
    if (!grad(0) && !grad(1) && !grad(2)) {
      return result;
    }
    auto [grad_visual, grad_semantic, grad_temperature] = call_backward(
        grad(0), grad(1), grad(2), saved[0], defined(semantic), saved[2], saved[3], saved[4], saved[5], saved[6],
        saved[7], ctx->saved_data["positives"].toStringView(), ctx->saved_data["reduction"].toStringView(),
        ctx->saved_data["normalize"].toBool(), ctx->saved_data["ignore_index"].toInt());
    result[0] = grad_visual;
    result[1] = semantic.defined() ? grad_semantic : Tensor();
    result[3] = grad_temperature;
    return result;
  }
};

ContrastiveForward contrastive_forward_autograd(
    const Tensor& visual, const OptionalTensor& semantic, const Tensor& labels, const Tensor& temperature, bool vtov,
    bool vtos, bool stov, std::string_view positives, std::string_view reduction, bool normalize,
    int64_t ignore_index) {
  const auto out = ContrastiveFunction::apply(
      visual, semantic, labels, temperature, vtov, vtos, stov, positives, reduction, normalize, ignore_index);
  return {out[0], out[1], out[2], out[3], out[4], out[5], out[6]};
}

// Under autocast, latents of mixed precision are brought to the widest of their dtypes; sums are float32 anyway.
template <c10::DeviceType device>
ContrastiveForward contrastive_forward_autocast(
    const Tensor& visual, const OptionalTensor& semantic, const Tensor& labels, const Tensor& temperature, bool vtov,
    bool vtos, bool stov, std::string_view positives, std::string_view reduction, bool normalize,
    int64_t ignore_index) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(at::autocast::get_autocast_dispatch_key_from_device_type(device));
  const auto type = widest_type({visual, semantic});
  return call_forward(
      to_floating(visual, type), semantic ? OptionalTensor(to_floating(*semantic, type)) : std::nullopt, labels,
      temperature, vtov, vtos, stov, positives, reduction, normalize, ignore_index);
}

// A backward pass that runs under autocast keeps the dtypes of its forward pass.
template <c10::DeviceType device>
ContrastiveBackward contrastive_backward_autocast(
    const OptionalTensor& grad_vtov, const OptionalTensor& grad_vtos, const OptionalTensor& grad_stov,
    const Tensor& visual, const OptionalTensor& semantic, const Tensor& labels, const Tensor& temperature,
    const Tensor& lse_vtov, const Tensor& lse_positives, const Tensor& lse_vtos, const Tensor& lse_stov,
    std::string_view positives, std::string_view reduction, bool normalize, int64_t ignore_index) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(at::autocast::get_autocast_dispatch_key_from_device_type(device));
  return call_backward(
      grad_vtov, grad_vtos, grad_stov, visual, semantic, labels, temperature, lse_vtov, lse_positives, lse_vtos,
      lse_stov, positives, reduction, normalize, ignore_index);
}

TORCH_LIBRARY_IMPL(mcfa_fast, Meta, m) {
  m.impl("contrastive_forward", contrastive_forward_meta);
  m.impl("contrastive_backward", contrastive_backward_meta);
}

TORCH_LIBRARY_IMPL(mcfa_fast, Autograd, m) {
  m.impl("contrastive_forward", contrastive_forward_autograd);
  m.impl("contrastive_backward", contrastive_backward_autograd);
}

TORCH_LIBRARY_IMPL(mcfa_fast, AutocastCPU, m) {
  m.impl("contrastive_forward", contrastive_forward_autocast<at::kCPU>);
  m.impl("contrastive_backward", contrastive_backward_autocast<at::kCPU>);
}

TORCH_LIBRARY_IMPL(mcfa_fast, AutocastCUDA, m) {
  m.impl("contrastive_forward", contrastive_forward_autocast<at::kCUDA>);
  m.impl("contrastive_backward", contrastive_backward_autocast<at::kCUDA>);
}

}  // namespace
}  // namespace mcfa_fast
