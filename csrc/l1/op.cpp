// Checks, shapes (Meta) and gradients (Autograd) of the gathered L1 distance.
#include "op.h"

namespace mcfa_fast {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;

void L1Forward::check(
    const Tensor& instances, const Tensor& table, const OptionalTensor& labels, std::string_view reduction) {
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
    check_same_shape(table, "table", instances, "instances");
  }
  parse_reduction(reduction);  // throws
}

void L1Backward::check(
    const Tensor& grad_loss, const Tensor& instances, const Tensor& table, const OptionalTensor& labels,
    std::string_view reduction, Mask) {
  L1Forward::check(instances, table, labels, reduction);
  check_loss_grad(grad_loss, "grad_loss", parse_reduction(reduction), instances, "instances");
}

namespace {

Tensor l1_forward_meta(
    const Tensor& instances, const Tensor& table, const OptionalTensor& labels, std::string_view reduction) {
  const auto options = instances.options().dtype(accumulation_type(instances.scalar_type()));
  const bool none = parse_reduction(reduction) == Reduction::kNone;
  return none ? at::empty_symint({instances.sym_size(0)}, options) : at::empty({}, options);
}

L1Backward::Result l1_backward_meta(
    const Tensor&, const Tensor& instances, const Tensor& table, const OptionalTensor&, std::string_view,
    L1Backward::Mask mask) {
  return {mask[0] ? empty_like_contiguous(instances) : Tensor(), mask[1] ? empty_like_contiguous(table) : Tensor()};
}

class L1Function : public torch::autograd::Function<L1Function> {
 public:
  static Tensor forward(
      AutogradContext* ctx, const Tensor& instances, const Tensor& table, const OptionalTensor& labels,
      std::string_view reduction) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({instances, table, labels.value_or(Tensor())});
    ctx->saved_data["reduction"] = std::string(reduction);
    return Kernels<L1Forward>::call(instances, table, labels, reduction);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_instances, grad_table] = Kernels<L1Backward>::call(
        grads[0], saved[0], saved[1], defined(saved[2]), ctx->saved_data["reduction"].toStringView(),
        {ctx->needs_input_grad(0), ctx->needs_input_grad(1)});
    return {grad_instances, grad_table, Tensor(), Tensor()};
  }
};

Tensor l1_forward_autograd(
    const Tensor& instances, const Tensor& table, const OptionalTensor& labels, std::string_view reduction) {
  if (!is_differentiated(instances, table)) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return Kernels<L1Forward>::call(instances, table, labels, reduction);
  }
  return L1Function::apply(instances, table, labels ? OptionalTensor(saved_labels(*labels)) : labels, reduction);
}

MCFA_REGISTER_OPERATORS(L1Forward, L1Backward, l1_forward_meta, l1_backward_meta, l1_forward_autograd)

}  // namespace
}  // namespace mcfa_fast
