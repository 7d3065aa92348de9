// The contrastive losses on the GPU, backward: every similarity is computed once more and its weight multiplied back onto
// the latents, row by row (wide latents: chunk by chunk, one after the other), so that no two blocks write to one place.
#include "backward_pairs.cuh"

namespace mcfa_fast {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// The anchors of one loss: their gradients and what these bring to the pairs.
template <typename T>
struct Anchors {
  using A = Accumulate<T>;
  Tensor terms;  // [5, rows]: grad, weight, shift2, positive_weight, positive_shift2
  bool in_form = false;

  Anchors() = default;
  // `arguments` holds all but the results.
  Anchors(AnchorTerms<A> arguments, const at::TensorOptions& options)
      : terms(at::empty({5, arguments.rows}, options)), in_form(arguments.lse_positives != nullptr) {
    arguments.grad = row(0);
    arguments.weight = row(1);
    arguments.shift2 = row(2);
    arguments.positive_weight = row(3);
    arguments.positive_shift2 = row(4);
    launch(anchor_terms_kernel<A>, blocks_for(arguments.rows, kRowThreads), kRowThreads, 0, arguments);
  }

  A* row(int64_t index) const {
    return output_pointer<A>(terms) + index * terms.size(1);
  }
  PairTerms<A> view() const {
    return {row(1), row(2), row(3), in_form ? row(4) : nullptr};
  }
  // With numbers of its own to take from the weights of positives.
  PairTerms<A> view(const Tensor& positive_weights) const {
    return {row(1), row(2), input_pointer<A>(positive_weights), nullptr};
  }
};

template <typename T>
ContrastiveInputGrads backward(
    const ContrastiveInputs& inputs, const ContrastiveLossGrads& grads, const ContrastiveSums& log_sum_exps) {
  using A = Accumulate<T>;
  const bool in_form = inputs.in_form();
  const bool normalize = inputs.normalize;
  const int64_t instances = inputs.instances();
  const int64_t classes = inputs.classes();
  const auto options = accumulating<T>(inputs.visual);
  const auto temperature = temperature_on_device(inputs.temperature, inputs.visual);
  const auto* tau = input_pointer<double>(temperature);
  // The caller may have written to the labels since forward looked at them.
  const auto labels = SortedLabelsOnDevice::of(inputs.labels, inputs.ignore_index, classes, grads.cross());
  const DeviceLatents<T> visual(inputs.visual, &labels, normalize);

  const auto contiguous = [&](const OptionalTensor& grad) {
    return grad ? grad->to(options.dtype()).contiguous() : Tensor();
  };
  const auto grad_vtov = contiguous(grads.vtov);
  const auto grad_vtos = contiguous(grads.vtos);
  const auto grad_stov = contiguous(grads.stov);
  const auto lse_vtov = log_sum_exps.vtov.contiguous();
  const auto lse_positives = in_form ? log_sum_exps.positives.contiguous() : Tensor();
  const auto lse_vtos = log_sum_exps.vtos.contiguous();
  const auto lse_stov = log_sum_exps.stov.contiguous();
  const bool mean = inputs.reduction == Reduction::kMean;
  const auto count = [&](int64_t index) { return mean ? labels.counts.select(0, index) : Tensor(); };
  const auto boost = std::is_same_v<T, float16>
      ? boost_for({{grad_vtov, count(1)}, {grad_vtos, count(0)}, {grad_stov, count(2)}}, options)
      : Tensor();

  const auto anchors = [&](const Tensor& grad, int64_t counted, int64_t least, bool of_classes, const Tensor& lse,
                           const Tensor& positive_lse) {
    AnchorTerms<A> terms{};
    terms.grad_loss = grad.defined() && grad.numel() > 0 ? input_pointer<A>(grad) : nullptr;
    terms.stride = grad.defined() ? grad.dim() : 0;
    terms.divisor = mean ? labels.kept() + counted : nullptr;
    terms.order = of_classes ? nullptr : input_pointer<int64_t>(labels.order);
    terms.begin = input_pointer<int64_t>(of_classes ? labels.class_begin : labels.begin);
    terms.end = input_pointer<int64_t>(of_classes ? labels.class_end : labels.end);
    terms.least = least;
    terms.rows = of_classes ? classes : instances;
    terms.lse = input_pointer<A>(lse);
    terms.lse_positives = input_pointer<A>(positive_lse);
    terms.temperature = tau;
    terms.normalized = normalize;
    terms.boost = input_pointer<A>(boost);
    return Anchors<T>(terms, options);
  };

  const auto pairs_of = [&](const PairsOnDevice<T>& of, const PairTerms<A>& row_terms,
                            const PairTerms<A>& column_terms, bool accumulate, const Tensor& grad) {
    add_weighted_columns(of, row_terms, column_terms, tau, normalize, accumulate, grad);
  };
  const auto space_for = [&](const DeviceLatents<T>& rows, int64_t columns) { return weighted_columns(rows, columns); };
  const auto pull_back_arguments = [&](const DeviceLatents<T>& latents, const Tensor& sums, const Tensor& along,
                                       const Tensor& grad_input) {
    return pull_back_of(latents, sums, tau, normalize, boost, along, grad_input);
  };

  const auto visual_sums = space_for(visual, grads.vtov ? instances : classes);
  bool any_sums = false;
  if (grad_vtov.defined()) {
    const auto of_vtov = anchors(grad_vtov, 1, 2, false, lse_vtov, lse_positives);
    const auto* begin = input_pointer<int64_t>(labels.begin);
    const auto* end = input_pointer<int64_t>(labels.end);
    pairs_of(
        {visual, visual, true, labels.kept(), labels.kept(), begin, end}, of_vtov.view(), of_vtov.view(), false,
        visual_sums);
    any_sums = true;
  }

  Tensor along_semantic;
  auto grad_semantic = at::empty({0}, inputs.visual.options());
  if (inputs.semantic && !grads.cross()) {
    grad_semantic = at::zeros(inputs.semantic->sizes(), inputs.semantic->options());
  } else if (grads.cross()) {
    const DeviceLatents<T> semantic(*inputs.semantic, nullptr, normalize);
    const auto of_vtos = anchors(grad_vtos, 0, 1, false, lse_vtos, Tensor());
    const auto of_stov = anchors(grad_stov, 2, 1, true, lse_stov, Tensor());
    const OwnProducts<T> own(visual, semantic, labels, in_form, temperature);
    const auto own_weights = at::empty({instances}, options);
    launch(
        own_weights_kernel<A>, blocks_for(instances, kRowThreads), kRowThreads, 0, instances, tau, in_form,
        input_pointer<int64_t>(labels.keys), labels.kept(), input_pointer<int64_t>(labels.begin),
        input_pointer<int64_t>(labels.end), input_pointer<A>(own.products), input_pointer<A>(own.of_classes),
        of_vtos.row(0), of_stov.row(0), input_pointer<A>(boost), output_pointer<A>(own_weights));
    const auto instance_terms = of_vtos.view(own_weights);
    const auto no_weights = at::zeros({classes}, options);
    const auto class_terms = of_stov.view(no_weights);
    if (classes > 0) {
      // An instance's only positive is its class.
      const auto behind = labels.keys + 1;
      pairs_of(
          {visual, semantic, false, labels.kept(), nullptr, input_pointer<int64_t>(labels.keys),
           input_pointer<int64_t>(behind)},
          instance_terms, class_terms, any_sums, visual_sums);
      any_sums = true;
    }
    const auto semantic_sums = space_for(semantic, instances);
    if (instances > 0) {
      pairs_of(
          {semantic, visual, false, nullptr, labels.kept(), input_pointer<int64_t>(labels.class_begin),
           input_pointer<int64_t>(labels.class_end)},
          class_terms, instance_terms, false, semantic_sums);
    } else {
      semantic_sums.zero_();
    }
    along_semantic = at::empty({classes}, options);
    grad_semantic = at::empty(inputs.semantic->sizes(), inputs.semantic->options());
    launch(
        pull_back_kernel<T>, blocks_for(classes * 32, kRowThreads), kRowThreads, 0,
        pull_back_arguments(semantic, semantic_sums, along_semantic, grad_semantic), nullptr, nullptr);
  }
  if (!any_sums) {
    visual_sums.zero_();
  }
  const auto along = at::empty({instances}, options);
  const auto grad_visual = at::empty(inputs.visual.sizes(), inputs.visual.options());
  launch(
      pull_back_kernel<T>, blocks_for(instances * 32, kRowThreads), kRowThreads, 0,
      pull_back_arguments(visual, visual_sums, along, grad_visual), input_pointer<int64_t>(labels.order), labels.kept());

  // Every similarity is v·u / temperature, so Σ_s (d loss / d s) s, which is -temperature times the gradient
  // looked for, is half of what the latents see along themselves.
  auto total = at::sum(along, at::kDouble);
  if (along_semantic.defined()) {
    total = total + at::sum(along_semantic, at::kDouble);
  }
  const auto grad_temperature = total / (temperature * temperature * -2.0);
  return {grad_visual, grad_semantic, grad_temperature.to(inputs.temperature.scalar_type())};
}

ContrastiveInputGrads contrastive_backward_cuda(
    const ContrastiveInputs& inputs, const ContrastiveLossGrads& grads, const ContrastiveSums& log_sum_exps) {
  const c10::DeviceGuard guard(inputs.visual.device());
  return with_device_type(inputs.visual.scalar_type(), [&](auto type) {
    return backward<decltype(type)>(inputs, grads, log_sum_exps);
  });
}

MCFA_REGISTER_KERNEL(MCFA_CUDA_LIBRARY, MCFA_CUDA_KEY, ContrastiveBackward, contrastive_backward_cuda)

}  // namespace
}  // namespace mcfa_fast
