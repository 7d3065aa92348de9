// The forward pass over pairs on the GPU: which kernel takes them, and the log-sum-exps that it leaves.
#pragma once

#include "batch.cuh"

namespace mcfa_fast {

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
  const auto kernel = pairs.selves.of_rows != nullptr || pairs.selves.of_columns != nullptr
      ? mma_forward_kernel<T, kWidth, true>
      : mma_forward_kernel<T, kWidth, false>;
  launch(
      kernel, dim3(blocks_for(pairs.row_count, kMmaRows), static_cast<unsigned>(splits)), MmaShape<kWidth>::kThreads,
      MmaShape<kWidth>::kForwardShared, pairs);
}

template <typename T>
void launch_pairs(const ForwardPairs<T>& pairs, const PairsOnDevice<T>& of, int64_t splits) {
  if (by_library<T>(pairs.width)) {
    for_each_block(of.rows, of.columns, of.same, [&](const auto& block) {
      block.for_each_chunk([&](const auto& chunk) {
        if (of.selves.of_rows != nullptr || of.selves.of_columns != nullptr) {
          launch(
              chunk_selves_kernel<Accumulate<T>>, blocks_for(std::max(chunk.row_count, chunk.column_count), kChunkThreads),
              kChunkThreads, 0, of.selves, chunk);
        }
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
  at::Tensor sums;       // [2, splits, rows]
  at::Tensor positives;  // likewise, of splits of its own

  RowSums() = default;
  RowSums(const PairsOnDevice<T>& of, const at::Tensor& temperature, bool normalized) {
    const auto& rows = of.rows;
    const auto& columns = of.columns;
    const bool by_symmetry = visits_pairs_once<T>(rows.padded(), of.same, normalized);
    int64_t parts = split_count<T>(rows.rows(), columns.rows(), rows.padded());
    int64_t splits = parts;
    if (by_symmetry) {
      splits = SymmetricChunks::of(rows.rows(), most_symmetric_chunks()).count;
      parts = std::min(parts, splits);
    }
    const auto options = accumulating<T>(rows.values);
    sums = at::empty({2, splits, rows.rows()}, options);
    positives = of.begin == nullptr ? at::Tensor() : at::empty({2, parts, rows.rows()}, options);
    if (columns.rows() == 0) {
      sums.zero_();
      if (positives.defined()) {
        positives.zero_();
      }
      return;
    }
    const ForwardPairs<T> pairs{
        rows.pointer(),
        columns.pointer(),
        rows.rows(),
        columns.rows(),
        of.kept_rows,
        of.kept_columns,
        rows.padded(),
        input_pointer<double>(temperature),
        normalized,
        of.same,
        of.selves,
        of.begin,
        of.end,
        by_symmetry,
        splits,
        part(sums, 0),
        part(sums, 1),
        part(positives, 0),
        part(positives, 1)};
    launch_pairs(pairs, of, parts);
  }

  static A* part(const at::Tensor& of, int64_t index) {
    return of.defined() ? output_pointer<A>(of) + index * of.size(1) * of.size(2) : nullptr;
  }
  static SplitSums<A> view(const at::Tensor& of) {
    return of.defined() ? SplitSums<A>{part(of, 0), part(of, 1), of.size(1), of.size(2)} : SplitSums<A>{};
  }
};

}  // namespace mcfa_fast
