// Checks, shapes (Meta) and gradients (Autograd) of the KL divergence.
#include "op.h"

namespace mcfa_fast {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void KLForward::check(const Tensor& mean, const Tensor& logvar, std::string_view reduction) {
  check_matrix(mean, "mean", "[N, D]");
  check_floating(mean, "mean");
  check_same_dtype(logvar, "logvar", mean, "mean");
  check_same_device(logvar, "logvar", mean, "mean");
  check_same_shape(logvar, "logvar", mean, "mean");
  parse_reduction(reduction);  // throws
}

void KLBackward::check(
    const Tensor& grad_loss, const Tensor& mean, const Tensor& logvar, std::string_view reduction) {
  KLForward::check(mean, logvar, reduction);
  check_loss_grad(grad_loss, "grad_loss", parse_reduction(reduction), mean, "mean");
}

namespace {

Tensor kl_forward_meta(const Tensor& mean, const Tensor& logvar, std::string_view reduction) {
  const auto options = mean.options().dtype(accumulation_type(mean.scalar_type()));
  const bool none = parse_reduction(reduction) == Reduction::kNone;
  return none ? at::empty_symint({mean.sym_size(0)}, options) : at::empty({}, options);
}

KLBackward::Result kl_backward_meta(const Tensor&, const Tensor& mean, const Tensor& logvar, std::string_view) {
  return {empty_like_contiguous(mean), empty_like_contiguous(logvar)};
}

class KLFunction : public torch::autograd::Function<KLFunction> {
 public:
  static Tensor forward(
      AutogradContext* ctx, const Tensor& mean, const Tensor& logvar, std::string_view reduction) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({mean, logvar});
    ctx->saved_data["reduction"] = std::string(reduction);
    return Kernels<KLForward>::call(mean, logvar, reduction);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_mean, grad_logvar] = Kernels<KLBackward>::call(
        grads[0], saved[0], saved[1], ctx->saved_data["reduction"].toStringView());
    return {grad_mean, grad_logvar, Tensor()};
  }
};

Tensor kl_forward_autograd(const Tensor& mean, const Tensor& logvar, std::string_view reduction) {
  return KLFunction::apply(mean, logvar, reduction);
}

MCFA_REGISTER_OPERATORS(KLForward, KLBackward, kl_forward_meta, kl_backward_meta, kl_forward_autograd)

}  // namespace
}  // namespace mcfa_fast
