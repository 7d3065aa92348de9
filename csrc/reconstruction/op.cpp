// Checks, shapes (Meta), gradients (Autograd) and dtype promotion (Autocast) of the gathered L1 distance.
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

void check_l1(const Tensor& instances, const Tensor& table, const OptionalTensor& labels) {
  check_matrix(instances, "instances", "[N, F]");
  check_floating(instances, "instances");
  check_matrix(table, "table", labels ? "[C, F]" : "[N, F]");
  check_same_dtype(table, "table", instances, "instances");
  check_same_device(table, "table", instances, "instances");
  if (labels) {
    TORCH_CHECK_VALUE(
        table.sym_size(1) == instances.sym_size(1), "expected `table` to have F = ", instances.sym_size(1),
        " columns, as many as `instances`, but got ", table.sym_sizes());
    check_labels(*labels, instances, "instances");
  } else {
    TORCH_CHECK_VALUE(
        table.sym_sizes() == instances.sym_sizes(), "expected `table` to have the shape of `instances`, ",
        instances.sym_sizes(), ", but got ", table.sym_sizes());
  }
}

namespace {

using ForwardSignature = Tensor(const Tensor&, const Tensor&, const OptionalTensor&, std::string_view);
using BackwardSignature =
    L1Backward(const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&, std::string_view, L1Mask);

Tensor call_forward(
    const Tensor& instances, const Tensor& table, const OptionalTensor& labels, std::string_view reduction) {
  static const auto handle = operator_handle<ForwardSignature>("l1_forward");
  return handle.call(instances, table, labels, reduction);
}

L1Backward call_backward(
    const Tensor& grad_loss, const Tensor& instances, const Tensor& table, const OptionalTensor& labels,
    std::string_view reduction, L1Mask mask) {
  static const auto handle = operator_handle<BackwardSignature>("l1_backward");
  return handle.call(grad_loss, instances, table, labels, reduction, mask);
}

Tensor l1_forward_meta(
    const Tensor& instances, const Tensor& table, const OptionalTensor& labels, std::string_view reduction) {
  check_l1(instances, table, labels);
  const auto options = instances.options().dtype(accumulation_type(instances.scalar_type()));
  const bool none = parse_reduction(reduction) == Reduction::kNone;
  return none ? at::empty_symint({instances.sym_size(0)}, options) : at::empty({}, options);
}

L1Backward l1_backward_meta(
    const Tensor&, const Tensor& instances, const Tensor& table, const OptionalTensor&, std::string_view,
    L1Mask mask) {
  const auto like = [](bool wanted, const Tensor& tensor) {
    return wanted ? at::empty_symint(tensor.sym_sizes(), tensor.options()) : Tensor();
  };
  return {like(mask[0], instances), like(mask[1], table)};
}

// A node whose only purpose is the error when someone differentiates the gradient. It has the wanted gradients only.
class L1BackwardFunction : public torch::autograd::Function<L1BackwardFunction> {
 public:
  static variable_list forward(
      AutogradContext*, const Tensor& grad_loss, const Tensor& instances, const Tensor& table,
      const OptionalTensor& labels, std::string_view reduction, L1Mask mask) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [grad_instances, grad_table] = call_backward(grad_loss, instances, table, labels, reduction, mask);
    variable_list wanted;
    for (auto& grad : {grad_instances, grad_table}) {
      if (grad.defined()) {
        wanted.push_back(grad);
      }
    }
    return wanted;
  }

  static variable_list backward(AutogradContext*, const variable_list&) {
    throw_double_backward("l1_reconstruction");
  }
};

L1Backward l1_backward_autograd(
    const Tensor& grad_loss, const Tensor& instances, const Tensor& table, const OptionalTensor& labels,
    std::string_view reduction, L1Mask mask) {
  const auto grads = L1BackwardFunction::apply(grad_loss, instances, table, labels, reduction, mask);
  return {mask[0] ? grads[0] : Tensor(), mask[1] ? grads[mask[0]] : Tensor()};
}

class L1Function : public torch::autograd::Function<L1Function> {
 public:
  static Tensor forward(
      AutogradContext* ctx, const Tensor& instances, const Tensor& table, const OptionalTensor& labels,
      std::string_view reduction) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({instances, table, labels.value_or(Tensor())});
    ctx->saved_data["reduction"] = std::string(reduction);
    return call_forward(instances, table, labels, reduction);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_instances, grad_table] = call_backward(
        grads[0], saved[0], saved[1], defined(saved[2]), ctx->saved_data["reduction"].toStringView(),
        {ctx->needs_input_grad(0), ctx->needs_input_grad(1)});
    return {grad_instances, grad_table, Tensor(), Tensor()};
  }
};

Tensor l1_forward_autograd(
    const Tensor& instances, const Tensor& table, const OptionalTensor& labels, std::string_view reduction) {
  return L1Function::apply(instances, table, labels, reduction);
}

// Under autocast, inputs of mixed precision are brought to the wider of their dtypes; sums are float32 anyway.
template <c10::DeviceType device>
Tensor l1_forward_autocast(
    const Tensor& instances, const Tensor& table, const OptionalTensor& labels, std::string_view reduction) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(at::autocast::get_autocast_dispatch_key_from_device_type(device));
  const auto type = widest_type({instances, table});
  return call_forward(to_floating(instances, type), to_floating(table, type), labels, reduction);
}

TORCH_LIBRARY_IMPL(mcfa_fast, Meta, m) {
  m.impl("l1_forward", l1_forward_meta);
  m.impl("l1_backward", l1_backward_meta);
}

TORCH_LIBRARY_IMPL(mcfa_fast, Autograd, m) {
  m.impl("l1_forward", l1_forward_autograd);
  m.impl("l1_backward", l1_backward_autograd);
}

TORCH_LIBRARY_IMPL(mcfa_fast, AutocastCPU, m) {
  m.impl("l1_forward", l1_forward_autocast<at::kCPU>);
}

TORCH_LIBRARY_IMPL(mcfa_fast, AutocastCUDA, m) {
  m.impl("l1_forward", l1_forward_autocast<at::kCUDA>);
}

}  // namespace
}  // namespace mcfa_fast
