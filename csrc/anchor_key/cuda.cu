// The sums over pairs of anchors and keys on the GPU. Nothing waits for it.
#include "../contrastive/cuda/backward_pairs.cuh"
#include "../contrastive/cuda/forward_pairs.cuh"
#include "kernels.cuh"
#include "op.h"

namespace mcfa_fast {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// A side's rows in the order of their labels, and their positives on the other side.
template <typename T>
struct DeviceSide {
  SortedLabelsOnDevice labels;
  DeviceLatents<T> latents;
  Tensor begin;
  Tensor end;

  DeviceSide(const Tensor& rows, const OptionalTensor& given, const AnchorKeyInputs& inputs)
      : labels(SortedLabelsOnDevice::of(
            given ? *given : at::arange(rows.size(0), rows.options().dtype(at::kLong)), inputs.ignore_index, 0, false)),
        latents(rows, &labels, inputs.normalize),
        begin(labels.begin),
        end(labels.end) {}

  void meet(const DeviceSide& other) {
    begin = at::empty_like(labels.keys);
    end = at::empty_like(labels.keys);
    launch(
        shared_runs_kernel, blocks_for(rows(), kRowThreads), kRowThreads, 0, input_pointer<int64_t>(labels.keys), rows(),
        input_pointer<int64_t>(other.labels.keys), other.rows(), output_pointer<int64_t>(begin),
        output_pointer<int64_t>(end));
  }
  int64_t rows() const {
    return latents.rows();
  }
};

template <typename T>
struct DeviceSides {
  bool own_keys;
  DeviceSide<T> anchors;
  std::optional<DeviceSide<T>> other;
  Tensor selves;
  Tensor temperature;

  explicit DeviceSides(const AnchorKeyInputs& inputs)
      : own_keys(inputs.own_keys()),
        anchors(inputs.anchors, inputs.anchor_labels, inputs),
        temperature(temperature_on_device(inputs.temperature, inputs.anchors)) {
    if (own_keys) {
      return;
    }
    other.emplace(*inputs.keys, inputs.key_labels, inputs);
    anchors.meet(*other);
    other->meet(anchors);
    if (inputs.self_index) {
      const auto index = inputs.self_index->to(at::kLong).contiguous();
      const auto places = at::empty_like(other->labels.order);
      selves = at::empty_like(anchors.labels.order);
      launch(
          places_kernel, blocks_for(other->rows(), kRowThreads), kRowThreads, 0,
          input_pointer<int64_t>(other->labels.order), other->rows(), other->labels.kept(),
          output_pointer<int64_t>(places));
      launch(
          selves_kernel, blocks_for(anchors.rows(), kRowThreads), kRowThreads, 0, input_pointer<int64_t>(index),
          input_pointer<int64_t>(anchors.labels.order), anchors.rows(), input_pointer<int64_t>(places), other->rows(),
          output_pointer<int64_t>(selves));
    }
  }

  const DeviceSide<T>& keys() const {
    return own_keys ? anchors : *other;
  }
  const double* tau() const {
    return input_pointer<double>(temperature);
  }
  // The pairs with the anchors as rows, or the keys.
  PairsOnDevice<T> pairs(bool of_keys, bool with_positives) const {
    const auto& rows = of_keys ? keys() : anchors;
    const auto& columns = of_keys ? anchors : keys();
    const auto* self = input_pointer<int64_t>(selves);
    SelfPairs with_self{};  // a conditional of two of them ends nvcc 13.0's cicc
    (of_keys ? with_self.of_columns : with_self.of_rows) = self;
    return {
        rows.latents,
        columns.latents,
        own_keys,
        rows.labels.kept(),
        columns.labels.kept(),
        with_positives ? input_pointer<int64_t>(rows.begin) : nullptr,
        with_positives ? input_pointer<int64_t>(rows.end) : nullptr,
        with_self};
  }
};

template <typename T>
SideSums finished(const DeviceSides<T>& sides, bool of_keys, bool in_form, bool normalize) {
  using A = Accumulate<T>;
  const auto pairs = sides.pairs(of_keys, in_form);
  const auto& rows = of_keys ? sides.keys() : sides.anchors;
  const auto& columns = of_keys ? sides.anchors : sides.keys();
  const RowSums<T> sums(pairs, sides.temperature, normalize);
  const auto of_classes = in_form || columns.rows() == 0 ? Tensor() : class_sums(columns.latents, columns.labels);
  const auto options = accumulating<T>(rows.latents.values);
  const auto per_row = [&](at::ScalarType type) { return at::empty({rows.rows()}, options.dtype(type)); };
  const auto type = c10::CppTypeToScalarType<A>::value;
  SideSums result{per_row(type), per_row(type), per_row(at::kLong)};
  launch(
      finish_side_kernel<T>, blocks_for(rows.rows() * 32, kRowThreads), kRowThreads, 0,
      FinishSide<T>{
          rows.latents.pointer(),
          columns.latents.pointer(),
          rows.rows(),
          rows.latents.padded(),
          sides.tau(),
          normalize,
          in_form,
          sides.own_keys,
          pairs.selves,
          input_pointer<int64_t>(rows.labels.order),
          rows.labels.kept(),
          input_pointer<int64_t>(rows.begin),
          input_pointer<int64_t>(rows.end),
          input_pointer<A>(of_classes),
          sums.view(sums.sums),
          sums.view(sums.positives),
          output_pointer<A>(result.log_sum_exp),
          output_pointer<A>(result.positives),
          output_pointer<int64_t>(result.counts)});
  return result;
}

template <typename T>
AnchorKeyResult forward(const AnchorKeyInputs& inputs, bool key_side) {
  const DeviceSides<T> sides(inputs);
  AnchorKeyResult result;
  result.anchors = finished(sides, false, inputs.in_form(), inputs.normalize);
  if (key_side && !sides.own_keys) {
    result.keys = finished(sides, true, inputs.in_form(), inputs.normalize);
    return result;
  }
  // Those of anchors that are their own keys once more, or none.
  const auto of_keys = [&](const Tensor& sums) { return key_side ? sums.clone() : at::empty({0}, sums.options()); };
  const auto& [log_sum_exp, positives, counts] = result.anchors;
  result.keys = {of_keys(log_sum_exp), of_keys(positives), of_keys(counts)};
  return result;
}

// What the rows of a side bring to the weights of their pairs.
template <typename T>
struct DeviceTerms {
  using A = Accumulate<T>;
  Tensor terms;  // [4, rows]: weight, shift2, positive_weight, positive_shift2
  bool in_form;

  DeviceTerms(
      const DeviceSides<T>& sides, bool of_keys, const SideTerms& grads, const SideTerms& sums,
      const AnchorKeyInputs& inputs, const Tensor& boost)
      : in_form(inputs.in_form()) {
    const auto& side = of_keys ? sides.keys() : sides.anchors;
    const auto options = accumulating<T>(side.latents.values);
    const auto contiguous = [&](const OptionalTensor& tensor) {
      return tensor ? tensor->to(options.dtype()).contiguous() : Tensor();
    };
    const Tensor held[] = {
        contiguous(grads.log_sum_exp), contiguous(grads.positives), contiguous(sums.log_sum_exp),
        contiguous(sums.positives)};
    terms = at::empty({4, side.rows()}, options);
    launch(
        side_terms_kernel<A>, blocks_for(side.rows(), kRowThreads), kRowThreads, 0,
        SideTermsArguments<A>{
            input_pointer<A>(held[0]),
            input_pointer<A>(held[1]),
            input_pointer<A>(held[2]),
            input_pointer<A>(held[3]),
            in_form,
            input_pointer<int64_t>(side.labels.order),
            side.labels.kept(),
            side.rows(),
            sides.tau(),
            inputs.normalize,
            input_pointer<A>(boost),
            row(0),
            row(1),
            row(2),
            row(3)});
  }

  A* row(int64_t index) const {
    return output_pointer<A>(terms) + index * terms.size(1);
  }
  PairTerms<A> view() const {
    return {row(0), row(1), row(2), in_form ? row(3) : nullptr};
  }
};

template <typename T>
AnchorKeyInputGrads backward(
    const AnchorKeyInputs& inputs, const AnchorKeyTerms& grads, const AnchorKeyTerms& sums, AnchorKeyMask mask) {
  using A = Accumulate<T>;
  const DeviceSides<T> sides(inputs);
  const bool own_keys = sides.own_keys;
  const auto options = accumulating<T>(inputs.anchors);
  const auto terms_of_both = own_keys ? both_sides(grads, sums) : std::pair(grads.anchors, sums.anchors);
  const auto& [anchor_grads, anchor_sums] = terms_of_both;
  const SideTerms key_grads = own_keys ? SideTerms{} : grads.keys;
  const auto largest = [](const OptionalTensor& grad) { return std::pair(grad.value_or(Tensor()), Tensor()); };
  const auto boost = std::is_same_v<T, float16>
      ? boost_for(
            {largest(anchor_grads.log_sum_exp), largest(anchor_grads.positives), largest(key_grads.log_sum_exp),
             largest(key_grads.positives)},
            options)
      : Tensor();
  const DeviceTerms<T> anchor_terms(sides, false, anchor_grads, anchor_sums, inputs, boost);
  std::optional<DeviceTerms<T>> other_terms;
  if (!own_keys) {
    other_terms.emplace(sides, true, key_grads, sums.keys, inputs, boost);
  }
  const auto& key_terms = own_keys ? anchor_terms : *other_terms;

  // The gradient of a side's input, and the sum of what its latents see along themselves.
  const auto grad_of = [&](bool of_keys, Tensor& along) {
    const auto& rows = of_keys ? sides.keys() : sides.anchors;
    const auto& columns = of_keys ? sides.anchors : sides.keys();
    const auto row_sums = weighted_columns(rows.latents, columns.rows());
    if (columns.rows() > 0) {
      add_weighted_columns(
          sides.pairs(of_keys, true), of_keys ? key_terms.view() : anchor_terms.view(),
          of_keys ? anchor_terms.view() : key_terms.view(), sides.tau(), inputs.normalize, false, row_sums);
    } else {
      row_sums.zero_();
    }
    const auto row_along = at::empty({rows.rows()}, options);
    const auto grad = at::empty(rows.latents.input.sizes(), inputs.anchors.options());
    launch(
        pull_back_kernel<T>, blocks_for(rows.rows() * 32, kRowThreads), kRowThreads, 0,
        pull_back_of(rows.latents, row_sums, sides.tau(), inputs.normalize, boost, row_along, grad),
        input_pointer<int64_t>(rows.labels.order), rows.labels.kept());
    along = at::sum(row_along, at::kDouble);
    return grad;
  };
  const bool keys_wanted = mask[1] && !own_keys;
  Tensor along;
  AnchorKeyInputGrads result;
  result.keys = keys_wanted ? grad_of(true, along) : Tensor();
  // The temperature's gradient takes one side at least.
  const auto grad_anchors = mask[0] || !keys_wanted ? grad_of(false, along) : Tensor();
  result.anchors = mask[0] ? grad_anchors : Tensor();
  // Every similarity is u·k / temperature, so Σ_s (d loss / d s) s, which is -temperature times the gradient looked for,
  // is what one side sees along itself; or half of what rows see that are both.
  const auto& temperature = sides.temperature;
  result.temperature =
      (along / (temperature * temperature * (own_keys ? -2.0 : -1.0))).to(inputs.temperature.scalar_type());
  return result;
}

AnchorKeyResult anchor_key_forward_cuda(const AnchorKeyInputs& inputs, bool key_side) {
  const c10::DeviceGuard guard(inputs.anchors.device());
  return with_device_type(
      inputs.anchors.scalar_type(), [&](auto type) { return forward<decltype(type)>(inputs, key_side); });
}

AnchorKeyInputGrads anchor_key_backward_cuda(
    const AnchorKeyInputs& inputs, const AnchorKeyTerms& grads, const AnchorKeyTerms& sums, AnchorKeyMask mask) {
  const c10::DeviceGuard guard(inputs.anchors.device());
  return with_device_type(inputs.anchors.scalar_type(), [&](auto type) {
    return backward<decltype(type)>(inputs, grads, sums, mask);
  });
}

MCFA_REGISTER_KERNEL(MCFA_CUDA_LIBRARY, MCFA_CUDA_KEY, AnchorKeyForward, anchor_key_forward_cuda)
MCFA_REGISTER_KERNEL(MCFA_CUDA_LIBRARY, MCFA_CUDA_KEY, AnchorKeyBackward, anchor_key_backward_cuda)

}  // namespace
}  // namespace mcfa_fast
