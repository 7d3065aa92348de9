// The contrastive losses on the GPU, backward: every similarity is computed once more and its weight multiplied back onto
// the latents, row by row (wide latents: chunk by chunk, one after the other), so that no two blocks write to one place.
#include "batch.cuh"

namespace mcfa_fast {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

template <int kWidth, bool kPolynomial, typename T>
void launch_hopper_backward(const BackwardPairs<T>& pairs, dim3 grid) {
  check_hopper();
  launch(
      hopper_backward_kernel<T, kWidth, kPolynomial>, grid, HopperShape<kWidth>::kThreads, HopperShape<kWidth>::kShared,
      pairs);
}

template <int kWidth, typename T>
void launch_mma_backward(const BackwardPairs<T>& pairs, int64_t splits) {
  const dim3 grid(blocks_for(pairs.row_count, kMmaRows), static_cast<unsigned>(splits));
  if constexpr (kWidth <= 128) {
    const auto wish = hopper_kernels();
    if (wish != HopperKernels::kOff) {
      wish == HopperKernels::kOn ? launch_hopper_backward<kWidth, false>(pairs, grid)
                                 : launch_hopper_backward<kWidth, true>(pairs, grid);
      return;
    }
  }
  launch(
      mma_backward_kernel<T, kWidth>, grid, MmaShape<kWidth>::kThreads, MmaShape<kWidth>::kBackwardShared, pairs);
}

template <int kWidth, typename T>
void launch_simt_backward(const BackwardPairs<T>& pairs, int64_t splits) {
  const dim3 grid(
      blocks_for(pairs.row_count, kSimtTile), static_cast<unsigned>(splits), blocks_for(pairs.width, kWidth));
  launch(simt_backward_kernel<T, kWidth>, grid, kSimtThreads, simt_backward_shared<T, kWidth>(), pairs);
}

// grad [splits, rows, padded] (+)= the weights of the pairs times the columns.
template <typename T>
void launch_pairs(
    const BackwardPairs<T>& pairs, const DeviceLatents<T>& rows, const DeviceLatents<T>& columns, const Tensor& grad) {
  const int64_t splits = grad.size(0);
  if (by_library<T>(pairs.width)) {
    if (!pairs.accumulate) {
      grad.zero_();
    }
    const auto add_product = [&](int64_t first_row, const Tensor& weights, const Tensor& values) {
      grad.select(0, 0).narrow(0, first_row, weights.size(0)).add_(wide_product(weights, values, grad.scalar_type()));
    };
    for_each_block(rows, columns, [&](const auto& block) {
      const int64_t column_count = block.column_values.size(0);
      const int64_t stride = (column_count + 7) / 8 * 8;  // whole 16 bytes, which the library reads faster
      const auto weights = at::empty({block.row_values.size(0), stride}, rows.values.options()).narrow(1, 0, column_count);
      block.for_each_chunk([&](const auto& chunk) {
        launch(
            chunk_backward_kernel<T>, static_cast<unsigned>(chunk.row_count), kChunkThreads, 0, pairs, chunk,
            output_pointer<T>(weights) + (chunk.first_column - block.first_column), stride);
      });
      add_product(block.first_row, weights, block.column_values);
      if (block.mirrored) {
        add_product(block.first_column, weights.t(), block.row_values);
      }
    });
  } else if constexpr (kOnMatrixUnits<T>) {
    pairs.width == 64 ? launch_mma_backward<64>(pairs, splits)
        : pairs.width == 128 ? launch_mma_backward<128>(pairs, splits) : launch_mma_backward<256>(pairs, splits);
  } else if constexpr (std::is_same_v<T, float>) {
    pairs.width <= 64 ? launch_simt_backward<64>(pairs, splits)
        : pairs.width <= 128 ? launch_simt_backward<128>(pairs, splits) : launch_simt_backward<256>(pairs, splits);
  } else {
    launch_simt_backward<64>(pairs, splits);
  }
}

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

// float16 has few exponents: for it the pair kernels' weights are brought near its upper end and back again.
Tensor boost_for(const std::vector<std::pair<Tensor, Tensor>>& grads_and_divisors, const at::TensorOptions& options) {
  constexpr double kTarget = 8192;  // a weight is at most four times the largest gradient
  auto largest = at::zeros({}, options);
  for (const auto& [grad, divisor] : grads_and_divisors) {
    if (grad.defined() && grad.numel() > 0) {
      largest = at::maximum(largest, grad.abs().amax() / (divisor.defined() ? divisor.clamp_min(1) : at::ones_like(largest)));
    }
  }
  return at::where(largest > 0, kTarget / largest, at::ones_like(largest));
}

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

  // Sums over the pairs, [splits, rows, padded], in the pair kernels' scale.
  const auto pairs_of = [&](const DeviceLatents<T>& rows, const DeviceLatents<T>& columns,
                            const PairTerms<A>& row_terms, const PairTerms<A>& column_terms, const Tensor& begin,
                            const Tensor& end, const int64_t* kept_rows, const int64_t* kept_columns, bool accumulate,
                            const Tensor& grad) {
    const BackwardPairs<T> pairs{
        rows.pointer(),
        columns.pointer(),
        rows.rows(),
        columns.rows(),
        kept_rows,
        kept_columns,
        rows.padded(),
        tau,
        normalize,
        &rows == &columns,
        input_pointer<int64_t>(begin),
        input_pointer<int64_t>(end),
        row_terms,
        column_terms,
        accumulate,
        output_pointer<A>(grad)};
    launch_pairs(pairs, rows, columns, grad);
  };
  const auto space_for = [&](const DeviceLatents<T>& rows, int64_t columns) {
    return at::empty({split_count<T>(rows.rows(), columns, rows.padded()), rows.rows(), rows.padded()}, options);
  };
  const auto pull_back_arguments = [&](const DeviceLatents<T>& latents, const Tensor& sums, const Tensor& along,
                                       const Tensor& grad_input) {
    return PullBack<T>{
        input_pointer<T>(latents.input),
        input_pointer<A>(latents.inverse_norms),
        latents.rows(),
        latents.input.size(1),
        latents.padded(),
        tau,
        normalize,
        input_pointer<A>(boost),
        output_pointer<A>(sums),
        sums.size(0),
        output_pointer<A>(along),
        output_pointer<T>(grad_input)};
  };

  const auto visual_sums = space_for(visual, grads.vtov ? instances : classes);
  bool any_sums = false;
  if (grad_vtov.defined()) {
    const auto of_vtov = anchors(grad_vtov, 1, 2, false, lse_vtov, lse_positives);
    pairs_of(
        visual, visual, of_vtov.view(), of_vtov.view(), labels.begin, labels.end, labels.kept(), labels.kept(), false,
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
      pairs_of(
          visual, semantic, instance_terms, class_terms, labels.keys, labels.keys + 1, labels.kept(), nullptr, any_sums,
          visual_sums);
      any_sums = true;
    }
    const auto semantic_sums = space_for(semantic, instances);
    if (instances > 0) {
      pairs_of(
          semantic, visual, class_terms, instance_terms, labels.class_begin, labels.class_end, nullptr, labels.kept(),
          false, semantic_sums);
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
