// Checks, shapes (Meta) and gradients (Autograd) of the Wasserstein alignment.
#include "op.h"

namespace mcfa_fast {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;

void WassersteinForward::check(
    const Tensor& mean_a, const Tensor& logvar_a, const Tensor& mean_b, const Tensor& logvar_b,
    const OptionalTensor& labels, std::string_view reduction) {
  check_matrix(mean_a, "mean_a", "[N, D]");
  check_floating(mean_a, "mean_a");
  check_matrix(mean_b, "mean_b", labels ? "[C, D]" : "[N, D]");
  const auto check_like = [&](const Tensor& tensor, const char* name, const Tensor& shape_of, const char* shape_name) {
    check_same_dtype(tensor, name, mean_a, "mean_a");
    check_same_device(tensor, name, mean_a, "mean_a");
    check_same_shape(tensor, name, shape_of, shape_name);
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
  parse_reduction(reduction);  // throws
}

void WassersteinBackward::check(
    const Tensor& grad_loss, const Tensor& distance, const Tensor& mean_a, const Tensor& logvar_a,
    const Tensor& mean_b, const Tensor& logvar_b, const OptionalTensor& labels, std::string_view reduction) {
  WassersteinForward::check(mean_a, logvar_a, mean_b, logvar_b, labels, reduction);
  check_loss_grad(grad_loss, "grad_loss", parse_reduction(reduction), mean_a, "mean_a");
  check_per_row(distance, "distance", mean_a, "mean_a");
}

namespace {

WassersteinForward::Result wasserstein_forward_meta(
    const Tensor& mean_a, const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&,
    std::string_view reduction) {
  const auto options = mean_a.options().dtype(accumulation_type(mean_a.scalar_type()));
  const auto distance = at::empty_symint({mean_a.sym_size(0)}, options);
  const bool none = parse_reduction(reduction) == Reduction::kNone;
  return {none ? at::empty_like(distance) : at::empty({}, options), distance};
}

WassersteinBackward::Result wasserstein_backward_meta(
    const Tensor&, const Tensor&, const Tensor& mean_a, const Tensor& logvar_a, const Tensor& mean_b,
    const Tensor& logvar_b, const OptionalTensor&, std::string_view) {
  return {
      empty_like_contiguous(mean_a), empty_like_contiguous(logvar_a), empty_like_contiguous(mean_b),
      empty_like_contiguous(logvar_b)};
}

class WassersteinFunction : public torch::autograd::Function<WassersteinFunction> {
 public:
  static variable_list forward(
      AutogradContext* ctx, const Tensor& mean_a, const Tensor& logvar_a, const Tensor& mean_b,
      const Tensor& logvar_b, const OptionalTensor& labels, std::string_view reduction) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [loss, distance] =
        Kernels<WassersteinForward>::call(mean_a, logvar_a, mean_b, logvar_b, labels, reduction);
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
    std::tie(result[0], result[1], result[2], result[3]) = Kernels<WassersteinBackward>::call(
        grads[0], saved[0], saved[1], saved[2], saved[3], saved[4], defined(saved[5]),
        ctx->saved_data["reduction"].toStringView());
    return result;
  }
};

WassersteinForward::Result wasserstein_forward_autograd(
    const Tensor& mean_a, const Tensor& logvar_a, const Tensor& mean_b, const Tensor& logvar_b,
    const OptionalTensor& labels, std::string_view reduction) {
  if (!is_differentiated(mean_a, logvar_a, mean_b, logvar_b)) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return Kernels<WassersteinForward>::call(mean_a, logvar_a, mean_b, logvar_b, labels, reduction);
  }
  const auto out = WassersteinFunction::apply(
      mean_a, logvar_a, mean_b, logvar_b, labels ? OptionalTensor(saved_labels(*labels)) : labels, reduction);
  return {out[0], out[1]};
}

MCFA_REGISTER_OPERATORS(
    WassersteinForward, WassersteinBackward, wasserstein_forward_meta, wasserstein_backward_meta,
    wasserstein_forward_autograd)

}  // namespace
}  // namespace mcfa_fast
