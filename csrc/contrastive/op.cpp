// Checks, shapes (Meta) and gradients (Autograd) of the contrastive losses.
#include "op.h"

#include <cmath>
#include <limits>

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

std::string_view name_of(Positives positives) {
  return positives == Positives::kIn ? "in" : "out";
}

void check_temperature(const Tensor& temperature, const Tensor& latents, const char* latents_name) {
  check_floating(temperature, "temperature");
  TORCH_CHECK_VALUE(
      temperature.dim() == 0, "expected `temperature` to be a number or a tensor without dimensions, but got shape ",
      temperature.sym_sizes());
  TORCH_CHECK_VALUE(
      temperature.device() == latents.device() || temperature.device().is_cpu(),
      "expected `temperature` on the CPU or on the device of `", latents_name, "` (", latents.device(), "), but got ",
      temperature.device());
}

namespace {

void check_inputs(const ContrastiveInputs& inputs) {
  const auto& visual = inputs.visual;
  check_matrix(visual, "visual", "[N, D]");
  check_floating(visual, "visual");
  check_labels(inputs.labels, visual, "visual");
  if (inputs.semantic) {
    const auto& semantic = *inputs.semantic;
    check_matrix(semantic, "semantic", "[C, D]");
    check_same_dtype(semantic, "semantic", visual, "visual");
    check_same_device(semantic, "semantic", visual, "visual");
    TORCH_CHECK_VALUE(
        semantic.sym_size(1) == visual.sym_size(1), "expected `semantic` to have D = ", visual.sym_size(1),
        " columns, as many as `visual`, but got ", semantic.sym_sizes());
  }
  check_temperature(inputs.temperature, visual, "visual");
}

void check_semantic_given(const ContrastiveInputs& inputs, bool cross) {
  TORCH_CHECK_VALUE(
      inputs.semantic.has_value() || !cross,
      "expected `semantic` of shape [C, D] for the VtoS and StoV losses, but got None");
}

}  // namespace

std::tuple<ContrastiveInputs, ContrastiveWanted> ContrastiveForward::pack(
    const Tensor& visual, const OptionalTensor& semantic, const Tensor& labels, const Tensor& temperature, bool vtov,
    bool vtos, bool stov, std::string_view positives, std::string_view reduction, bool normalize,
    int64_t ignore_index) {
  return {
      {visual, semantic, labels, temperature, parse_positives(positives), parse_reduction(reduction), normalize,
       ignore_index},
      {vtov, vtos, stov}};
}

ContrastiveForward::Result ContrastiveForward::unpack(const ContrastiveLosses& losses) {
  const auto& sums = losses.log_sum_exps;
  return {losses.vtov, losses.vtos, losses.stov, sums.vtov, sums.positives, sums.vtos, sums.stov};
}

void ContrastiveForward::check(const ContrastiveInputs& inputs, const ContrastiveWanted& wanted) {
  TORCH_CHECK_VALUE(
      wanted.vtov || wanted.cross(), "expected at least one of `vtov`, `vtos` and `stov` to be asked for");
  check_inputs(inputs);
  check_semantic_given(inputs, wanted.cross());
}

std::tuple<ContrastiveInputs, ContrastiveLossGrads, ContrastiveSums> ContrastiveBackward::pack(
    const OptionalTensor& grad_vtov, const OptionalTensor& grad_vtos, const OptionalTensor& grad_stov,
    const Tensor& visual, const OptionalTensor& semantic, const Tensor& labels, const Tensor& temperature,
    const Tensor& lse_vtov, const Tensor& lse_positives, const Tensor& lse_vtos, const Tensor& lse_stov,
    std::string_view positives, std::string_view reduction, bool normalize, int64_t ignore_index) {
  return {
      {visual, semantic, labels, temperature, parse_positives(positives), parse_reduction(reduction), normalize,
       ignore_index},
      {grad_vtov, grad_vtos, grad_stov},
      {lse_vtov, lse_positives, lse_vtos, lse_stov}};
}

ContrastiveBackward::Result ContrastiveBackward::unpack(const ContrastiveInputGrads& grads) {
  return {grads.visual, grads.semantic, grads.temperature};
}

void ContrastiveBackward::check(
    const ContrastiveInputs& inputs, const ContrastiveLossGrads& grads, const ContrastiveSums& log_sum_exps) {
  check_inputs(inputs);
  check_semantic_given(inputs, grads.cross());
  const auto check_loss = [&](const OptionalTensor& grad, const char* grad_name, const Tensor& anchors,
                              const char* anchors_name) {
    if (grad) {
      check_loss_grad(*grad, grad_name, inputs.reduction, anchors, anchors_name);
    }
  };
  check_loss(grads.vtov, "grad_vtov", inputs.visual, "visual");
  check_loss(grads.vtos, "grad_vtos", inputs.visual, "visual");
  if (grads.vtov) {
    check_per_row(log_sum_exps.vtov, "lse_vtov", inputs.visual, "visual");
    if (inputs.in_form()) {
      check_per_row(log_sum_exps.positives, "lse_positives", inputs.visual, "visual");
    }
  }
  if (grads.vtos) {
    check_per_row(log_sum_exps.vtos, "lse_vtos", inputs.visual, "visual");
  }
  if (grads.stov) {
    check_loss(grads.stov, "grad_stov", *inputs.semantic, "semantic");
    check_per_row(log_sum_exps.stov, "lse_stov", *inputs.semantic, "semantic");
  }
}

ContrastiveLosses contrastive_forward(const ContrastiveInputs& inputs, const ContrastiveWanted& wanted) {
  auto [loss_vtov, loss_vtos, loss_stov, lse_vtov, lse_positives, lse_vtos, lse_stov] =
      Kernels<ContrastiveForward>::call(
          inputs.visual, inputs.semantic, inputs.labels, inputs.temperature, wanted.vtov, wanted.vtos, wanted.stov,
          name_of(inputs.positives), name_of(inputs.reduction), inputs.normalize, inputs.ignore_index);
  return {loss_vtov, loss_vtos, loss_stov, {lse_vtov, lse_positives, lse_vtos, lse_stov}};
}

ContrastiveInputGrads contrastive_backward(
    const ContrastiveInputs& inputs, const ContrastiveLossGrads& grads, const ContrastiveSums& log_sum_exps) {
  auto [grad_visual, grad_semantic, grad_temperature] = Kernels<ContrastiveBackward>::call(
      grads.vtov, grads.vtos, grads.stov, inputs.visual, inputs.semantic, inputs.labels, inputs.temperature,
      log_sum_exps.vtov, log_sum_exps.positives, log_sum_exps.vtos, log_sum_exps.stov, name_of(inputs.positives),
      name_of(inputs.reduction), inputs.normalize, inputs.ignore_index);
  return {grad_visual, grad_semantic, grad_temperature};
}

double read_temperature(const Tensor& temperature, at::ScalarType type) {
  const double value = temperature.item<double>();
  TORCH_CHECK_VALUE(value > 0 && std::isfinite(value), "expected `temperature` to be positive and finite, but got ", value);
  // Below, rounding errors of similarities would outgrow their exponentials; above, similarities would vanish.
  const bool in_double = type == at::kDouble;
  const double smallest = in_double ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon();
  const double largest = in_double ? 1e150 : 1e30;
  TORCH_CHECK_VALUE(
      value >= smallest && value <= largest, "expected `temperature` between ", smallest, " and ", largest,
      " for sums in ", type, ", but got ", value);
  return value;
}

namespace {

ContrastiveLosses contrastive_forward_meta(const ContrastiveInputs& inputs, const ContrastiveWanted& wanted) {
  const auto& visual = inputs.visual;
  const auto options = visual.options().dtype(accumulation_type(visual.scalar_type()));
  const c10::SymInt instances = visual.sym_size(0);
  const c10::SymInt classes = inputs.semantic ? inputs.semantic->sym_size(0) : c10::SymInt(0);
  const auto loss = [&](bool of_interest, const c10::SymInt& anchors) {
    const bool per_anchor = of_interest && inputs.reduction == Reduction::kNone;
    return per_anchor ? at::empty_symint({anchors}, options) : at::empty({}, options);
  };
  const auto sums = [&](bool of_interest, const c10::SymInt& anchors) {
    return at::empty_symint({of_interest ? anchors : c10::SymInt(0)}, options);
  };
  return {
      loss(wanted.vtov, instances),
      loss(wanted.vtos, instances),
      loss(wanted.stov, classes),
      {sums(wanted.vtov, instances), sums(wanted.vtov && inputs.in_form(), instances), sums(wanted.vtos, instances),
       sums(wanted.stov, classes)}};
}

ContrastiveInputGrads contrastive_backward_meta(
    const ContrastiveInputs& inputs, const ContrastiveLossGrads&, const ContrastiveSums&) {
  const auto options = inputs.visual.options();
  return {
      empty_like_contiguous(inputs.visual),
      inputs.semantic ? empty_like_contiguous(*inputs.semantic) : at::empty({0}, options),
      at::empty({}, options.dtype(inputs.temperature.dtype()))};
}

class ContrastiveFunction : public torch::autograd::Function<ContrastiveFunction> {
 public:
  // The first three are those of `inputs` that can have a gradient, for autograd to see them.
  static variable_list forward(
      AutogradContext* ctx, const Tensor& visual, const OptionalTensor& semantic, const Tensor& temperature,
      const ContrastiveInputs& inputs, const ContrastiveWanted& wanted) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto losses = contrastive_forward(inputs, wanted);
    const auto& sums = losses.log_sum_exps;
    ctx->save_for_backward(
        {visual, semantic.value_or(Tensor()), inputs.labels, temperature, sums.vtov, sums.positives, sums.vtos, sums.stov});
    ctx->mark_non_differentiable({sums.vtov, sums.positives, sums.vtos, sums.stov});
    ctx->set_materialize_grads(false);
    ctx->saved_data["wanted"] = std::vector<bool>{wanted.vtov, wanted.vtos, wanted.stov};
    ctx->saved_data["positives"] = static_cast<int64_t>(inputs.positives);
    ctx->saved_data["reduction"] = static_cast<int64_t>(inputs.reduction);
    ctx->saved_data["normalize"] = inputs.normalize;
    ctx->saved_data["ignore_index"] = inputs.ignore_index;
    return {losses.vtov, losses.vtos, losses.stov, sums.vtov, sums.positives, sums.vtos, sums.stov};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& loss_grads) {
    const auto saved = ctx->get_saved_variables();
    const auto wanted = ctx->saved_data["wanted"].toBoolList();
    const auto grad = [&](size_t loss) { return wanted.get(loss) ? defined(loss_grads[loss]) : std::nullopt; };
    const ContrastiveLossGrads grads{grad(0), grad(1), grad(2)};
    if (!grads.vtov && !grads.cross()) {
      return variable_list(5);
    }
    const ContrastiveInputs inputs{
        saved[0],
        defined(saved[1]),
        saved[2],
        saved[3],
        static_cast<Positives>(ctx->saved_data["positives"].toInt()),
        static_cast<Reduction>(ctx->saved_data["reduction"].toInt()),
        ctx->saved_data["normalize"].toBool(),
        ctx->saved_data["ignore_index"].toInt()};
    const auto result = contrastive_backward(inputs, grads, {saved[4], saved[5], saved[6], saved[7]});
    return {
        result.visual, inputs.semantic ? result.semantic : Tensor(), result.temperature, /*inputs=*/Tensor(),
        /*wanted=*/Tensor()};
  }
};

ContrastiveLosses contrastive_forward_autograd(const ContrastiveInputs& given, const ContrastiveWanted& wanted) {
  if (!is_differentiated(given.visual, given.semantic, given.temperature)) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return contrastive_forward(given, wanted);
  }
  ContrastiveInputs inputs = given;
  inputs.labels = saved_labels(given.labels);
  const auto out = ContrastiveFunction::apply(inputs.visual, inputs.semantic, inputs.temperature, inputs, wanted);
  return {out[0], out[1], out[2], {out[3], out[4], out[5], out[6]}};
}

MCFA_REGISTER_OPERATORS(
    ContrastiveForward, ContrastiveBackward, contrastive_forward_meta, contrastive_backward_meta,
    contrastive_forward_autograd)

}  // namespace
}  // namespace mcfa_fast
