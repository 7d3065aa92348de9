// The pair kernels for wide latents: a matrix library multiplies a chunk of rows by a chunk of columns, and these
// turn the products into log-sum-exps (forward) or weights (backward). Where rows and columns are the same latents,
// a chunk right of the diagonal serves its columns, too, and the chunk that mirrors it is never made.
#pragma once

#include "scaling.cuh"

namespace mcfa_fast {

constexpr int kChunkThreads = 256;
constexpr int kStripColumns = 16;  // adjacent columns of a block: half a warp reads 64 bytes in one piece
constexpr int kStripThreads = 1024;
// Terms that a thread takes at a time; of float64 it has no registers for more.
template <typename A>
constexpr int kChunkTerms = sizeof(A) == 4 ? 4 : 1;
template <typename A>
constexpr int kStripTerms = sizeof(A) == 4 ? 8 : 1;

// The chunk of products [row_count, column_count] beginning at (first_row, first_column) of the whole.
template <typename A>
struct Chunk {
  A* products;
  int64_t first_row;
  int64_t first_column;
  int64_t row_count;
  int64_t column_count;
};

// Adds part of a log-sum-exp to what earlier chunks left, or begins it.
template <typename A>
__device__ __forceinline__ void add_part(LogSum<A> part, bool begins, A& largest, A& sum) {
  if (!begins) {
    part.merge(largest, sum);
  }
  largest = part.largest;
  sum = part.sum;
}

// Leaves out of a chunk the products of rows with themselves. A thread per row, or per column.
template <typename A>
__global__ void __launch_bounds__(kChunkThreads) chunk_selves_kernel(const SelfPairs selves, const Chunk<A> chunk) {
  const int64_t place = global_thread();
  if (selves.of_rows != nullptr && place < chunk.row_count) {
    const int64_t column = selves.of_rows[chunk.first_row + place] - chunk.first_column;
    if (column >= 0 && column < chunk.column_count) {
      chunk.products[place * chunk.column_count + column] = -INFINITY;
    }
  }
  if (selves.of_columns != nullptr && place < chunk.column_count) {
    const int64_t row = selves.of_columns[chunk.first_column + place] - chunk.first_row;
    if (row >= 0 && row < chunk.row_count) {
      chunk.products[row * chunk.column_count + place] = -INFINITY;
    }
  }
}

// Adds the chunk to its rows' log-sum-exps. A block per row. The chunk with the first column begins them; rows that do
// not meet it, because chunks left of the diagonal are left out, were begun as columns. `pairs` is of one split.
template <typename T>
__global__ void __launch_bounds__(kChunkThreads) chunk_forward_kernel(
    const ForwardPairs<T> pairs, const Chunk<Accumulate<T>> chunk) {
  using A = Accumulate<T>;
  A* scratch = reinterpret_cast<A*>(shared_memory());
  constexpr int kWarps = kChunkThreads / 32;
  constexpr int kTerms = kChunkTerms<A>;
  const int64_t row = chunk.first_row + blockIdx.x;
  if (row >= kept_count(pairs.kept_rows, pairs.row_count)) {
    return;
  }
  const auto scaling = DeviceScaling<A>::read(pairs.temperature, pairs.normalized);
  const int64_t kept_columns = kept_count(pairs.kept_columns, pairs.column_count);
  const int64_t begin = pairs.begin == nullptr ? 0 : pairs.begin[row];
  const int64_t end = pairs.begin == nullptr ? 0 : pairs.end[row];
  const A* products = chunk.products + blockIdx.x * chunk.column_count;
  auto sum = empty_sum(scaling);
  auto positive = empty_sum(scaling);
  for (int64_t first = threadIdx.x; first < chunk.column_count; first += kTerms * kChunkThreads) {
    const auto other = [&](int k) {
      const int64_t place = first + k * kChunkThreads;
      const int64_t column = chunk.first_column + place;
      const bool counts = place < chunk.column_count && column < kept_columns && !(pairs.same && column == row);
      return counts ? products[place] : A(-INFINITY);
    };
    add_terms<kTerms>(sum, scaling, other);
    if (begin < end) {
      add_terms<kTerms>(positive, scaling, [&](int k) {
        const int64_t column = chunk.first_column + first + k * kChunkThreads;
        return column >= begin && column < end ? other(k) : A(-INFINITY);
      });
    }
  }
  const auto finish = [&](LogSum<A> part, A* largest, A* sums) {
    const A common = block_max(part.largest, scratch, kWarps);
    const A rescaled = part.largest > -INFINITY ? part.sum * exp2_fast(part.largest - common) : part.sum;
    const LogSum<A> total{common, block_sum(rescaled, scratch, kWarps)};
    if (threadIdx.x == 0) {
      add_part(total, chunk.first_column == 0, largest[row], sums[row]);
    }
  };
  finish(sum, pairs.largest, pairs.sum);
  if (pairs.begin != nullptr) {
    finish(positive, pairs.positive_largest, pairs.positive_sum);
  }
}

template <typename T>
constexpr int64_t chunk_columns_shared() {
  return 2 * (kStripThreads / 32) * (kStripColumns + 1) * sizeof(LogSum<Accumulate<T>>);
}

// Adds a chunk right of the diagonal to its columns' log-sum-exps, as its mirror image would. A block per strip of
// columns. The chunk with the first row begins them.
template <typename T>
__global__ void __launch_bounds__(kStripThreads) chunk_columns_kernel(
    const ForwardPairs<T> pairs, const Chunk<Accumulate<T>> chunk) {
  using A = Accumulate<T>;
  constexpr int kWarps = kStripThreads / 32;
  constexpr int kGroups = kStripThreads / kStripColumns;  // of rows
  constexpr int kTerms = kStripTerms<A>;
  constexpr int kStride = kStripColumns + 1;  // so that a warp reads a column without a bank conflict
  static_assert(kWarps == 32 && kStripColumns == 16, "a warp per column, and each of its lanes a warp's part");
  auto* scratch = reinterpret_cast<LogSum<A>*>(shared_memory());  // [2][kWarps][kStride]
  const int64_t kept = kept_count(pairs.kept_columns, pairs.column_count) - chunk.first_column;
  const int64_t column_count = kept < chunk.column_count ? kept : chunk.column_count;
  const int64_t strip = static_cast<int64_t>(blockIdx.x) * kStripColumns;
  if (strip >= column_count) {
    return;
  }
  const auto scaling = DeviceScaling<A>::read(pairs.temperature, pairs.normalized);
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int64_t column = strip + lane % kStripColumns;
  const bool counts = column < column_count;
  // The rows come before the columns: all of them are kept, and positives are those from the class's first row on.
  const int64_t positives_begin =
      counts && pairs.begin != nullptr ? pairs.begin[chunk.first_column + column] - chunk.first_row : chunk.row_count;
  auto sum = empty_sum(scaling);
  auto positive = empty_sum(scaling);
  for (int64_t first = threadIdx.x / kStripColumns; first < chunk.row_count; first += kTerms * kGroups) {
    A products[kTerms];
#pragma unroll
    for (int k = 0; k < kTerms; ++k) {
      const int64_t row = first + k * kGroups;
      products[k] = counts && row < chunk.row_count ? chunk.products[row * chunk.column_count + column] : A(-INFINITY);
    }
    add_terms<kTerms>(sum, scaling, [&](int k) { return products[k]; });
    if (positives_begin < chunk.row_count) {
      add_terms<kTerms>(positive, scaling, [&](int k) {
        return first + k * kGroups >= positives_begin ? products[k] : A(-INFINITY);
      });
    }
  }
  const auto leave = [&](LogSum<A> part, LogSum<A>* parts) {
    part.merge(shuffle_xor(part.largest, kStripColumns), shuffle_xor(part.sum, kStripColumns));
    if (lane < kStripColumns) {
      parts[warp * kStride + lane] = part;
    }
  };
  leave(sum, scratch);
  leave(positive, scratch + kWarps * kStride);
  barrier();
  if (warp >= kStripColumns || strip + warp >= column_count) {
    return;
  }
  const int64_t at = chunk.first_column + strip + warp;
  const auto finish = [&](const LogSum<A>* parts, A* largest, A* sums) {
    LogSum<A> total = parts[lane * kStride + warp];
    for (int mask = 16; mask > 0; mask /= 2) {
      total.merge(shuffle_xor(total.largest, mask), shuffle_xor(total.sum, mask));
    }
    if (lane == 0) {
      add_part(total, chunk.first_row == 0, largest[at], sums[at]);
    }
  };
  finish(scratch, pairs.largest, pairs.sum);
  if (pairs.begin != nullptr) {
    finish(scratch + kWarps * kStride, pairs.positive_largest, pairs.positive_sum);
  }
}

// weights [row_count, column_count] of the chunk's pairs, rows `stride` apart; 0 for pairs that take no part. A block per row. Where rows and
// columns are the same latents, so are their terms and ranges of positives: (i, j) and (j, i) have one weight.
template <typename T>
__global__ void __launch_bounds__(kChunkThreads) chunk_backward_kernel(
    const BackwardPairs<T> pairs, const Chunk<Accumulate<T>> chunk, T* weights, int64_t stride) {
  using A = Accumulate<T>;
  const int64_t row = chunk.first_row + blockIdx.x;
  const auto scaling = DeviceScaling<A>::read(pairs.temperature, pairs.normalized);
  const int64_t kept_columns = kept_count(pairs.kept_columns, pairs.column_count);
  const bool row_kept = row < kept_count(pairs.kept_rows, pairs.row_count);
  const auto& r = pairs.row_terms;
  const auto& c = pairs.column_terms;
  const int64_t begin = pairs.begin[row];
  const int64_t end = pairs.end[row];
  for (int64_t place = threadIdx.x; place < chunk.column_count; place += kChunkThreads) {
    const int64_t column = chunk.first_column + place;
    const A s = chunk.products[blockIdx.x * chunk.column_count + place];
    A weight = 0;
    if (row_kept && column < kept_columns && !is_self(pairs, row, column)) {
      weight = pair_weight(s, scaling, r.weight[row], r.shift2[row], c.weight[column], c.shift2[column]);
      if (column >= begin && column < end) {
        weight -= positive_pair_weight(s, scaling, r, row, c, column);
      }
    }
    weights[blockIdx.x * stride + place] = narrow<T>(weight);
  }
}

}  // namespace mcfa_fast
