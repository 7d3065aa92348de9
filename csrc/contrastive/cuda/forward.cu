// The contrastive losses on the GPU, forward. Nothing waits for the GPU: a label outside [0, C) stops with a device
// assertion, an impossible temperature that lives on the GPU makes the results NaN.
#include "batch.cuh"

namespace mcfa_fast {
namespace {

using at::Tensor;

// Whether each pair of these latents is to be visited once; see mma_symmetric_kernel.
template <typename T>
bool visits_pairs_once(int64_t width, bool same, bool normalized) {
  return kOnMatrixUnits<T> && !by_library<T>(width) && same && normalized;
}

template <int kWidth, typename T>
void launch_mma_forward(const ForwardPairs<T>& pairs, int64_t splits) {
  if (pairs.by_symmetry) {
    const auto chunks = SymmetricChunks::of(pairs.row_count, most_symmetric_chunks());
    launch(
        mma_symmetric_kernel<T, kWidth>, static_cast<unsigned>(chunks.pairs()), MmaShape<kWidth>::kThreads,
        MmaShape<kWidth>::kSymmetricShared, pairs, chunks);
  }
  launch(
      mma_forward_kernel<T, kWidth>, dim3(blocks_for(pairs.row_count, kMmaRows), static_cast<unsigned>(splits)),
      MmaShape<kWidth>::kThreads, MmaShape<kWidth>::kForwardShared, pairs);
}

template <typename T>
void launch_pairs(const ForwardPairs<T>& pairs, const DeviceLatents<T>& rows, const DeviceLatents<T>& columns, int64_t splits) {
  if (by_library<T>(pairs.width)) {
    for_each_block(rows, columns, [&](const auto& block) {
      block.for_each_chunk([&](const auto& chunk) {
        launch(
            chunk_forward_kernel<T>, static_cast<unsigned>(chunk.row_count), kChunkThreads,
            kChunkThreads / 32 * sizeof(Accumulate<T>), pairs, chunk);
        if (block.mirrored) {
          launch(
              chunk_columns_kernel<T>, blocks_for(chunk.column_count, kStripColumns), kStripThreads,
              chunk_columns_shared<T>(), pairs, chunk);
        }
      });
    });
  } else if constexpr (kOnMatrixUnits<T>) {
    pairs.width == 64 ? launch_mma_forward<64>(pairs, splits)
        : pairs.width == 128 ? launch_mma_forward<128>(pairs, splits) : launch_mma_forward<256>(pairs, splits);
  } else {
    launch(
        simt_forward_kernel<T>, dim3(blocks_for(pairs.row_count, kSimtTile), static_cast<unsigned>(splits)), kSimtThreads,
        simt_forward_shared<T>(), pairs);
  }
}

// The log-sum-exps of every row over the columns; and over its positives, if those are asked for.
template <typename T>
struct RowSums {
  using A = Accumulate<T>;
  Tensor sums;       // [2, splits, rows]
  Tensor positives;  // likewise, of splits of its own

  RowSums() = default;
  RowSums(
      const DeviceLatents<T>& rows, const DeviceLatents<T>& columns, const int64_t* kept_rows, const int64_t* kept_columns,
      const SortedLabelsOnDevice* of_positives, const Tensor& temperature, bool normalized) {
    const bool same = &rows == &columns;
    const bool by_symmetry = visits_pairs_once<T>(rows.padded(), same, normalized);
    int64_t parts = split_count<T>(rows.rows(), columns.rows(), rows.padded());
    int64_t splits = parts;
    if (by_symmetry) {
      splits = SymmetricChunks::of(rows.rows(), most_symmetric_chunks()).count;
      parts = std::min(parts, splits);
    }
    const auto options = accumulating<T>(rows.values);
    sums = at::empty({2, splits, rows.rows()}, options);
    positives = of_positives == nullptr ? Tensor() : at::empty({2, parts, rows.rows()}, options);
    if (columns.rows() == 0) {
      sums.zero_();
      return;
    }
    const ForwardPairs<T> pairs{
        rows.pointer(),
        columns.pointer(),
        rows.rows(),
        columns.rows(),
        kept_rows,
        kept_columns,
        rows.padded(),
        input_pointer<double>(temperature),
        normalized,
        same,
        of_positives == nullptr ? nullptr : input_pointer<int64_t>(of_positives->begin),
        of_positives == nullptr ? nullptr : input_pointer<int64_t>(of_positives->end),
        by_symmetry,
        splits,
        part(sums, 0),
        part(sums, 1),
        part(positives, 0),
        part(positives, 1)};
    launch_pairs(pairs, rows, columns, parts);
  }

  static A* part(const Tensor& of, int64_t index) {
    return of.defined() ? output_pointer<A>(of) + index * of.size(1) * of.size(2) : nullptr;
  }
  static SplitSums<A> view(const Tensor& of) {
    return of.defined() ? SplitSums<A>{part(of, 0), part(of, 1), of.size(1), of.size(2)} : SplitSums<A>{};
  }
};

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
    others = RowSums<T>(visual, visual, labels.kept(), labels.kept(), in_form ? &labels : nullptr, temperature, normalize);
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
    over_classes = RowSums<T>(visual, semantic, labels.kept(), nullptr, nullptr, temperature, normalize);
    finish.over_classes = over_classes.view(over_classes.sums);
    result.vtos = per_instance();
    sums.vtos = per_instance();
    finish.vtos = {output_pointer<A>(result.vtos), output_pointer<A>(sums.vtos), nullptr};
  }
  launch(finish_visual_kernel<T>, blocks_for(instances * 32, kRowThreads), kRowThreads, 0, finish);
  if (wanted.stov) {
    const RowSums<T> over_instances(semantic, visual, nullptr, labels.kept(), nullptr, temperature, normalize);
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
