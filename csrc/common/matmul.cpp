#include "matmul.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <string_view>

namespace mcfa_fast {

using at::Tensor;

namespace {

// x W^T + bias, then what `attr` names.
using LinearPointwise = Tensor(
    const Tensor&, const Tensor&, const std::optional<Tensor>&, std::string_view,
    c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);

// Below so many multiplications the set-up of a call costs more than it saves.
constexpr int64_t kFewestMultiplications = int64_t{1} << 20;

const std::optional<c10::TypedOperatorHandle<LinearPointwise>>& linear_pointwise() {
  static const auto handle = [] {
    const auto found = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    return found ? std::optional(found->typed<LinearPointwise>()) : std::nullopt;
  }();
  return handle;
}

Tensor call_onednn(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, std::string_view attr) {
  return linear_pointwise()->call(x, weight, bias, attr, c10::List<std::optional<at::Scalar>>(), std::nullopt);
}

bool pays(const Tensor& x, int64_t outputs) {
  return x.scalar_type() == at::kFloat && x.is_cpu() && x.numel() * outputs >= kFewestMultiplications &&
      at::globalContext().userEnabledMkldnn() && linear_pointwise().has_value();
}

}  // namespace

Tensor product(const Tensor& a, const Tensor& b) {
  return pays(a, b.size(1)) ? call_onednn(a, b.t(), std::nullopt, "none") : at::mm(a, b);
}

void add_product_(const Tensor& sum, const Tensor& a, const Tensor& b) {
  if (pays(a, b.size(1))) {
    sum.add_(product(a, b));
  } else {
    sum.addmm_(a, b);
  }
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, bool relu) {
  if (pays(x, weight.size(0))) {
    return call_onednn(x, weight, bias, relu ? "relu" : "none");
  }
  Tensor result = at::addmm(bias, x, weight.t());
  return relu ? result.relu_() : result;
}

}  // namespace mcfa_fast
