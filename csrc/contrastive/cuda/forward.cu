// The contrastive losses on the GPU, forward. Nothing waits for the GPU: a label outside [0, C) stops with a device
// assertion, an impossible temperature that lives on the GPU makes the results NaN.
#include "forward_pairs.cuh"

namespace mcfa_fast {
namespace {

using at::Tensor;

// `losses` of all anchors reduced, `valid` of which count.
Tensor reduced(const Tensor& losses, Reduction reduction, const Tensor& valid) {
  if (reduction == Reduction::kNone) {
    return losses;
  }
  auto total = at::sum(losses, at::kDouble);
  if (reduction == Reduction::kMean) {
    total = total / valid.clamp_min(1);
  }
  return total.to(losses.scalar_type());
}

template <typename T>
ContrastiveLosses forward(const ContrastiveInputs& inputs, const ContrastiveWanted& wanted) {
  using A = Accumulate<T>;
  const bool in_form = inputs.in_form();
  const bool normalize = inputs.normalize;
  const int64_t instances = inputs.instances();
  const int64_t classes = inputs.classes();
  const auto options = accumulating<T>(inputs.visual);
  const auto zero = [&] { return at::zeros({}, options); };
  const auto nothing = [&] { return at::empty({0}, options); };
  ContrastiveLosses result{zero(), zero(), zero(), {nothing(), nothing(), nothing(), nothing()}};
  auto& sums = result.log_sum_exps;

  const auto temperature = temperature_on_device(inputs.temperature, inputs.visual);
  const auto labels = SortedLabelsOnDevice::of(inputs.labels, inputs.ignore_index, classes, wanted.cross());
  const DeviceLatents<T> visual(inputs.visual, &labels, normalize);
  const auto* tau = input_pointer<double>(temperature);
  const auto per_instance = [&] { return at::empty({instances}, options); };

  FinishVisual<T> finish{};
  finish.latents = visual.pointer();
  finish.rows = instances;
  finish.width = visual.padded();
  finish.temperature = tau;
  finish.normalized = normalize;
  finish.in_form = in_form;
  finish.order = input_pointer<int64_t>(labels.order);
  finish.kept = labels.kept();
  finish.begin = input_pointer<int64_t>(labels.begin);
  finish.end = input_pointer<int64_t>(labels.end);

  RowSums<T> others;
  RowSums<T> over_classes;
  Tensor sums_of_classes;
  if (wanted.vtov) {
    others = RowSums<T>(
        {visual, visual, true, labels.kept(), labels.kept(), in_form ? finish.begin : nullptr, finish.end}, temperature,
        normalize);
    finish.others = others.view(others.sums);
    finish.positives = others.view(others.positives);
    result.vtov = per_instance();
    sums.vtov = per_instance();
    sums.positives = in_form ? per_instance() : sums.positives;
    finish.vtov = {output_pointer<A>(result.vtov), output_pointer<A>(sums.vtov), output_pointer<A>(sums.positives)};
    if (!in_form) {
      sums_of_classes = class_sums(visual, labels);
      finish.class_sums = input_pointer<A>(sums_of_classes);
    }
  }
  DeviceLatents<T> semantic;
  OwnProducts<T> own;
  if (wanted.cross()) {
    semantic = DeviceLatents<T>(*inputs.semantic, nullptr, normalize);
    own = OwnProducts<T>(visual, semantic, labels, in_form, temperature);
    finish.products = input_pointer<A>(own.products);
  }
  if (wanted.vtos) {
    over_classes = RowSums<T>({visual, semantic, false, labels.kept(), nullptr, nullptr, nullptr}, temperature, normalize);
    finish.over_classes = over_classes.view(over_classes.sums);
    result.vtos = per_instance();
    sums.vtos = per_instance();
    finish.vtos = {output_pointer<A>(result.vtos), output_pointer<A>(sums.vtos), nullptr};
  }
  launch(finish_visual_kernel<T>, blocks_for(instances * 32, kRowThreads), kRowThreads, 0, finish);
  if (wanted.stov) {
    const RowSums<T> over_instances({semantic, visual, false, nullptr, labels.kept(), nullptr, nullptr}, temperature, normalize);
    result.stov = at::empty({classes}, options);
    sums.stov = at::empty({classes}, options);
    launch(
        finish_semantic_kernel<A>, blocks_for(classes, kRowThreads), kRowThreads, 0, classes, tau, normalize, in_form,
        input_pointer<int64_t>(labels.class_begin), input_pointer<int64_t>(labels.class_end),
        input_pointer<A>(own.of_classes), over_instances.view(over_instances.sums),
        AnchorResults<A>{output_pointer<A>(result.stov), output_pointer<A>(sums.stov), nullptr});
  }
  const auto count = [&](int64_t index) { return labels.counts.select(0, index); };
  result.vtov = wanted.vtov ? reduced(result.vtov, inputs.reduction, count(1)) : result.vtov;
  result.vtos = wanted.vtos ? reduced(result.vtos, inputs.reduction, count(0)) : result.vtos;
  result.stov = wanted.stov ? reduced(result.stov, inputs.reduction, count(2)) : result.stov;
  return result;
}

ContrastiveLosses contrastive_forward_cuda(const ContrastiveInputs& inputs, const ContrastiveWanted& wanted) {
  const c10::DeviceGuard guard(inputs.visual.device());
  return with_device_type(
      inputs.visual.scalar_type(), [&](auto type) { return forward<decltype(type)>(inputs, wanted); });
}

MCFA_REGISTER_KERNEL(MCFA_CUDA_LIBRARY, MCFA_CUDA_KEY, ContrastiveForward, contrastive_forward_cuda)

}  // namespace
}  // namespace mcfa_fast
