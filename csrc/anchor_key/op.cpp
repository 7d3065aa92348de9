// Checks, shapes (Meta) and gradients (Autograd) of the sums over pairs of anchors and keys.
#include "op.h"

namespace mcfa_fast {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;

namespace {

void check_inputs(const AnchorKeyInputs& inputs) {
  const auto& anchors = inputs.anchors;
  check_matrix(anchors, "anchors", "[N, D]");
  check_floating(anchors, "anchors");
  if (inputs.keys) {
    const auto& keys = *inputs.keys;
    check_matrix(keys, "keys", "[M, D]");
    check_same_dtype(keys, "keys", anchors, "anchors");
    check_same_device(keys, "keys", anchors, "anchors");
    TORCH_CHECK_VALUE(
        keys.sym_size(1) == anchors.sym_size(1), "expected `keys` to have D = ", anchors.sym_size(1),
        " columns, as many as `anchors`, but got ", keys.sym_sizes());
    TORCH_CHECK_VALUE(
        inputs.anchor_labels.has_value() == inputs.key_labels.has_value(),
        "expected `anchor_labels` and `key_labels`, or neither of them, but got ",
        inputs.key_labels ? "`key_labels`" : "`anchor_labels`", " alone");
  } else {
    TORCH_CHECK_VALUE(
        !inputs.key_labels, "expected `key_labels` to be None without `keys`, where anchors are their own keys, but got ",
        inputs.key_labels->sym_sizes());
    TORCH_CHECK_VALUE(
        !inputs.self_index, "expected `self_index` to be None without `keys`, where anchors are their own keys, but got ",
        inputs.self_index->sym_sizes());
  }
  if (inputs.anchor_labels) {
    check_labels(*inputs.anchor_labels, anchors, "anchors", "anchor_labels");
  }
  if (inputs.key_labels) {
    check_labels(*inputs.key_labels, *inputs.keys, "keys", "key_labels");
  }
  if (inputs.self_index) {
    check_labels(*inputs.self_index, anchors, "anchors", "self_index");
  }
  check_temperature(inputs.temperature, anchors, "anchors");
}

}  // namespace

std::tuple<AnchorKeyInputs, bool> AnchorKeyForward::pack(
    const Tensor& anchors, const OptionalTensor& keys, const OptionalTensor& anchor_labels,
    const OptionalTensor& key_labels, const OptionalTensor& self_index, const Tensor& temperature, bool key_side,
    std::string_view positives, bool normalize, int64_t ignore_index) {
  return {
      {anchors, keys, anchor_labels, key_labels, self_index, temperature, parse_positives(positives), normalize,
       ignore_index},
      key_side};
}

AnchorKeyForward::Result AnchorKeyForward::unpack(const AnchorKeyResult& result) {
  const auto& [anchors, keys] = result;
  return {anchors.log_sum_exp, anchors.positives, anchors.counts, keys.log_sum_exp, keys.positives, keys.counts};
}

void AnchorKeyForward::check(const AnchorKeyInputs& inputs, bool) {
  check_inputs(inputs);
}

std::tuple<AnchorKeyInputs, AnchorKeyTerms, AnchorKeyTerms, AnchorKeyMask> AnchorKeyBackward::pack(
    const OptionalTensor& grad_lse, const OptionalTensor& grad_positives, const OptionalTensor& grad_key_lse,
    const OptionalTensor& grad_key_positives, const Tensor& anchors, const OptionalTensor& keys,
    const OptionalTensor& anchor_labels, const OptionalTensor& key_labels, const OptionalTensor& self_index,
    const Tensor& temperature, const OptionalTensor& lse, const OptionalTensor& of_positives,
    const OptionalTensor& key_lse, const OptionalTensor& key_of_positives, std::string_view positives, bool normalize,
    int64_t ignore_index, AnchorKeyMask mask) {
  return {
      {anchors, keys, anchor_labels, key_labels, self_index, temperature, parse_positives(positives), normalize,
       ignore_index},
      {{grad_lse, grad_positives}, {grad_key_lse, grad_key_positives}},
      {{lse, of_positives}, {key_lse, key_of_positives}},
      mask};
}

AnchorKeyBackward::Result AnchorKeyBackward::unpack(const AnchorKeyInputGrads& grads) {
  return {grads.anchors, grads.keys, grads.temperature};
}

void AnchorKeyBackward::check(
    const AnchorKeyInputs& inputs, const AnchorKeyTerms& grads, const AnchorKeyTerms& sums, AnchorKeyMask) {
  check_inputs(inputs);
  const auto check_term = [](const OptionalTensor& grad, const char* grad_name, const OptionalTensor& sum,
                             const char* sum_name, bool needed, const Tensor& rows, const char* rows_name) {
    if (grad) {
      check_loss_grad(*grad, grad_name, Reduction::kNone, rows, rows_name);
      TORCH_CHECK_VALUE(sum || !needed, "expected `", sum_name, "` for `", grad_name, "`, but got None");
    }
    if (sum) {
      check_per_row(*sum, sum_name, rows, rows_name);
    }
  };
  const auto check_side = [&](const SideTerms& grad, const char* grad_lse, const char* grad_positives,
                              const SideTerms& sum, const char* lse, const char* of_positives, const Tensor& rows,
                              const char* rows_name) {
    check_term(grad.log_sum_exp, grad_lse, sum.log_sum_exp, lse, true, rows, rows_name);
    check_term(grad.positives, grad_positives, sum.positives, of_positives, inputs.in_form(), rows, rows_name);
  };
  check_side(
      grads.anchors, "grad_lse", "grad_positives", sums.anchors, "lse", "of_positives", inputs.anchors, "anchors");
  check_side(
      grads.keys, "grad_key_lse", "grad_key_positives", sums.keys, "key_lse", "key_of_positives", inputs.key_rows(),
      inputs.keys ? "keys" : "anchors");
}

std::pair<SideTerms, SideTerms> both_sides(const AnchorKeyTerms& grads, const AnchorKeyTerms& sums) {
  const auto total = [](const OptionalTensor& a, const OptionalTensor& b) { return a && b ? *a + *b : a ? a : b; };
  const auto either = [](const OptionalTensor& a, const OptionalTensor& b) { return a ? a : b; };
  return {
      {total(grads.anchors.log_sum_exp, grads.keys.log_sum_exp), total(grads.anchors.positives, grads.keys.positives)},
      {either(sums.anchors.log_sum_exp, sums.keys.log_sum_exp), either(sums.anchors.positives, sums.keys.positives)}};
}

namespace {

AnchorKeyResult anchor_key_forward_meta(const AnchorKeyInputs& inputs, bool key_side) {
  const auto side = [&](const c10::SymInt& rows) {
    const auto options = inputs.anchors.options();
    const auto sums = options.dtype(accumulation_type(inputs.anchors.scalar_type()));
    return SideSums{
        at::empty_symint({rows}, sums), at::empty_symint({rows}, sums), at::empty_symint({rows}, options.dtype(at::kLong))};
  };
  return {side(inputs.anchors.sym_size(0)), side(key_side ? inputs.key_rows().sym_size(0) : c10::SymInt(0))};
}

AnchorKeyInputGrads anchor_key_backward_meta(
    const AnchorKeyInputs& inputs, const AnchorKeyTerms&, const AnchorKeyTerms&, AnchorKeyMask mask) {
  return {
      mask[0] ? empty_like_contiguous(inputs.anchors) : Tensor(),
      mask[1] && inputs.keys ? empty_like_contiguous(*inputs.keys) : Tensor(),
      at::empty({}, inputs.anchors.options().dtype(inputs.temperature.dtype()))};
}

class AnchorKeyFunction : public torch::autograd::Function<AnchorKeyFunction> {
 public:
  // The first three are those of `inputs` that can have a gradient, for autograd to see them.
  static variable_list forward(
      AutogradContext* ctx, const Tensor& anchors, const OptionalTensor& keys, const Tensor& temperature,
      const AnchorKeyInputs& inputs, bool key_side) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto [lse, of_positives, counts, key_lse, key_of_positives, key_counts] = Kernels<AnchorKeyForward>::call(
        anchors, keys, inputs.anchor_labels, inputs.key_labels, inputs.self_index, temperature, key_side,
        name_of(inputs.positives), inputs.normalize, inputs.ignore_index);
    const bool in_form = inputs.in_form();
    ctx->save_for_backward(
        {anchors, keys.value_or(Tensor()), inputs.anchor_labels.value_or(Tensor()), inputs.key_labels.value_or(Tensor()),
         inputs.self_index.value_or(Tensor()), temperature, lse, in_form ? of_positives : Tensor(),
         key_side ? key_lse : Tensor(), in_form && key_side ? key_of_positives : Tensor()});
    ctx->mark_non_differentiable({counts, key_counts});
    ctx->set_materialize_grads(false);
    ctx->saved_data["key_side"] = key_side;
    ctx->saved_data["positives"] = static_cast<int64_t>(inputs.positives);
    ctx->saved_data["normalize"] = inputs.normalize;
    ctx->saved_data["ignore_index"] = inputs.ignore_index;
    return {lse, of_positives, counts, key_lse, key_of_positives, key_counts};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const bool key_side = ctx->saved_data["key_side"].toBool();
    const auto of_keys = [&](size_t output) { return key_side ? defined(grads[output]) : std::nullopt; };
    const AnchorKeyTerms sides{{defined(grads[0]), defined(grads[1])}, {of_keys(3), of_keys(4)}};
    if (!sides.anchors.log_sum_exp && !sides.anchors.positives && !sides.keys.log_sum_exp && !sides.keys.positives) {
      return variable_list(5);
    }
    const auto saved = ctx->get_saved_variables();
    const auto keys = defined(saved[1]);
    const auto [grad_anchors, grad_keys, grad_temperature] = Kernels<AnchorKeyBackward>::call(
        sides.anchors.log_sum_exp, sides.anchors.positives, sides.keys.log_sum_exp, sides.keys.positives, saved[0], keys,
        defined(saved[2]), defined(saved[3]), defined(saved[4]), saved[5], defined(saved[6]), defined(saved[7]),
        defined(saved[8]), defined(saved[9]), name_of(static_cast<Positives>(ctx->saved_data["positives"].toInt())),
        ctx->saved_data["normalize"].toBool(), ctx->saved_data["ignore_index"].toInt(),
        {ctx->needs_input_grad(0), keys && ctx->needs_input_grad(1)});  // counted without what is None
    return {grad_anchors, grad_keys, grad_temperature, /*inputs=*/Tensor(), /*key_side=*/Tensor()};
  }
};

AnchorKeyResult anchor_key_forward_autograd(const AnchorKeyInputs& given, bool key_side) {
  if (!is_differentiated(given.anchors, given.keys, given.temperature)) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto [lse, of_positives, counts, key_lse, key_of_positives, key_counts] = Kernels<AnchorKeyForward>::call(
        given.anchors, given.keys, given.anchor_labels, given.key_labels, given.self_index, given.temperature, key_side,
        name_of(given.positives), given.normalize, given.ignore_index);
    return {{lse, of_positives, counts}, {key_lse, key_of_positives, key_counts}};
  }
  AnchorKeyInputs inputs = given;
  for (auto* integers : {&inputs.anchor_labels, &inputs.key_labels, &inputs.self_index}) {
    if (*integers) {
      *integers = saved_labels(**integers);
    }
  }
  const auto out = AnchorKeyFunction::apply(inputs.anchors, inputs.keys, inputs.temperature, inputs, key_side);
  return {{out[0], out[1], out[2]}, {out[3], out[4], out[5]}};
}

MCFA_REGISTER_OPERATORS(
    AnchorKeyForward, AnchorKeyBackward, anchor_key_forward_meta, anchor_key_backward_meta, anchor_key_forward_autograd)

}  // namespace
}  // namespace mcfa_fast
