// The contrastive losses on the GPU, forward. Nothing waits for the GPU: a label outside [0, C) stops with a device
// assertion, an impossible temperature that lives on the GPU makes the results NaN.
#include <torch/library.h>

#include "batch.cuh"

namespace mcfa_fast {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// Whether each pair of these latents is to be visited once; see mma_symmetric_kernel.
template <typename T>
bool visits_pairs_once(int64_t width, bool same, bool normalized) {
  return kOnMatrixUnits<T> && !by_library<T>(width) && same && normalized;
}

template <int kWidth, typename T>
void launch_mma_forward(const ForwardPairs<T>& pairs, int64_t splits) {
  if (pairs.by_symmetry) {
    const auto chunks = SymmetricChunks::of(pairs.row_count);
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
    const int64_t parts = split_count<T>(rows.rows(), columns.rows(), rows.padded());
    const int64_t splits = by_symmetry ? std::max(parts, SymmetricChunks::of(rows.rows()).count) : parts;
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
ContrastiveForward forward(
    const Tensor& visual_input, const OptionalTensor& semantic_input, const Tensor& label_input,
    const Tensor& temperature_input, bool vtov, bool vtos, bool stov, Positives positives, Reduction reduction,
    bool normalize, int64_t ignore_index) {
  using A = Accumulate<T>;
  const bool in_form = positives == Positives::kIn;
  const int64_t instances = visual_input.size(0);
  const bool cross = vtos || stov;
  const int64_t classes = semantic_input ? semantic_input->size(0) : 0;
  const auto options = accumulating<T>(visual_input);
  const auto nothing = at::empty({0}, options);
  ContrastiveForward result{
      at::zeros({}, options), at::zeros({}, options), at::zeros({}, options), nothing,
      nothing.clone(),        nothing.clone(),        nothing.clone()};
  auto& [loss_vtov, loss_vtos, loss_stov, lse_vtov, lse_positives, lse_vtos, lse_stov] = result;

  const auto temperature = temperature_on_device(temperature_input, visual_input);
  const auto labels = SortedLabelsOnDevice::of(label_input, ignore_index, classes, cross);
  const DeviceLatents<T> visual(visual_input, &labels, normalize);
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
  if (vtov) {
    others = RowSums<T>(visual, visual, labels.kept(), labels.kept(), in_form ? &labels : nullptr, temperature, normalize);
    finish.others = others.view(others.sums);
    finish.positives = others.view(others.positives);
    loss_vtov = per_instance();
    lse_vtov = per_instance();
    lse_positives = in_form ? per_instance() : lse_positives;
    finish.vtov = {output_pointer<A>(loss_vtov), output_pointer<A>(lse_vtov), output_pointer<A>(lse_positives)};
    if (!in_form) {
      sums_of_classes = class_sums(visual, labels);
      finish.class_sums = input_pointer<A>(sums_of_classes);
    }
  }
  DeviceLatents<T> semantic;
  OwnProducts<T> own;
  if (cross) {
    semantic = DeviceLatents<T>(*semantic_input, nullptr, normalize);
    own = OwnProducts<T>(visual, semantic, labels, in_form, temperature);
    finish.products = input_pointer<A>(own.products);
  }
  if (vtos) {
    over_classes = RowSums<T>(visual, semantic, labels.kept(), nullptr, nullptr, temperature, normalize);
    finish.over_classes = over_classes.view(over_classes.sums);
    loss_vtos = per_instance();
    lse_vtos = per_instance();
    finish.vtos = {output_pointer<A>(loss_vtos), output_pointer<A>(lse_vtos), nullptr};
  }
  launch(finish_visual_kernel<T>, blocks_for(instances * 32, kRowThreads), kRowThreads, 0, finish);
  if (stov) {
    const RowSums<T> over_instances(semantic, visual, nullptr, labels.kept(), nullptr, temperature, normalize);
    loss_stov = at::empty({classes}, options);
    lse_stov = at::empty({classes}, options);
    launch(
        finish_semantic_kernel<A>, blocks_for(classes, kRowThreads), kRowThreads, 0, classes, tau, normalize, in_form,
        input_pointer<int64_t>(labels.class_begin), input_pointer<int64_t>(labels.class_end),
        input_pointer<A>(own.of_classes), over_instances.view(over_instances.sums),
        AnchorResults<A>{output_pointer<A>(loss_stov), output_pointer<A>(lse_stov), nullptr});
  }
  const auto count = [&](int64_t index) { return labels.counts.select(0, index); };
  loss_vtov = vtov ? reduced(loss_vtov, reduction, count(1)) : loss_vtov;
  loss_vtos = vtos ? reduced(loss_vtos, reduction, count(0)) : loss_vtos;
  loss_stov = stov ? reduced(loss_stov, reduction, count(2)) : loss_stov;
  return result;
}

ContrastiveForward contrastive_forward_cuda(
    const Tensor& visual, const OptionalTensor& semantic, const Tensor& labels, const Tensor& temperature, bool vtov,
    bool vtos, bool stov, std::string_view positives, std::string_view reduction, bool normalize,
    int64_t ignore_index) {
  check_contrastive(visual, semantic, labels, temperature, vtov, vtos, stov);
  const c10::DeviceGuard guard(visual.device());
  return with_device_type(visual.scalar_type(), [&](auto type) {
    return forward<decltype(type)>(
        visual, semantic, labels, temperature, vtov, vtos, stov, parse_positives(positives), parse_reduction(reduction),
        normalize, ignore_index);
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(MCFA_CUDA_LIBRARY, MCFA_CUDA_KEY, m) {
  m.impl("contrastive_forward", contrastive_forward_cuda);
}

}  // namespace mcfa_fast
