// The pair kernels for wide latents: a matrix library multiplies a chunk of rows by a chunk of columns, and these
// turn the products into log-sum-exps (forward) or weights (backward). A block per row of the chunk.
#pragma once

#include "scaling.cuh"

namespace mcfa_fast {

constexpr int kChunkThreads = 256;
constexpr int kChunkTerms = 4;  // that a thread takes at a time

// The chunk of products [row_count, column_count] beginning at (first_row, first_column) of the whole.
template <typename A>
struct Chunk {
  A* products;
  int64_t first_row;
  int64_t first_column;
  int64_t row_count;
  int64_t column_count;
};

// Adds the chunk to its rows' log-sum-exps; the chunk with the first column begins them. `pairs` is of one split.
template <typename T>
__global__ void __launch_bounds__(kChunkThreads) chunk_forward_kernel(
    const ForwardPairs<T> pairs, const Chunk<Accumulate<T>> chunk) {
  using A = Accumulate<T>;
  A* scratch = reinterpret_cast<A*>(shared_memory());
  constexpr int kWarps = kChunkThreads / 32;
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
  for (int64_t first = threadIdx.x; first < chunk.column_count; first += kChunkTerms * kChunkThreads) {
    const auto other = [&](int k) {
      const int64_t place = first + k * kChunkThreads;
      const int64_t column = chunk.first_column + place;
      const bool counts = place < chunk.column_count && column < kept_columns && !(pairs.same && column == row);
      return counts ? products[place] : A(-INFINITY);
    };
    add_terms<kChunkTerms>(sum, scaling, other);
    if (begin < end) {
      add_terms<kChunkTerms>(positive, scaling, [&](int k) {
        const int64_t column = chunk.first_column + first + k * kChunkThreads;
        return column >= begin && column < end ? other(k) : A(-INFINITY);
      });
    }
  }
  const auto finish = [&](LogSum<A> part, A* largest, A* sums) {
    const A common = block_max(part.largest, scratch, kWarps);
    const A rescaled = part.largest > -INFINITY ? part.sum * exp2_fast(part.largest - common) : part.sum;
    LogSum<A> total{common, block_sum(rescaled, scratch, kWarps)};
    if (threadIdx.x == 0) {
      if (chunk.first_column > 0) {
        total.merge(largest[row], sums[row]);
      }
      largest[row] = total.largest;
      sums[row] = total.sum;
    }
  };
  finish(sum, pairs.largest, pairs.sum);
  if (pairs.begin != nullptr) {
    finish(positive, pairs.positive_largest, pairs.positive_sum);
  }
}

// weights [row_count, column_count] of the chunk's pairs; 0 for pairs that take no part.
template <typename T>
__global__ void __launch_bounds__(kChunkThreads) chunk_backward_kernel(
    const BackwardPairs<T> pairs, const Chunk<Accumulate<T>> chunk, T* weights) {
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
    if (row_kept && column < kept_columns && !(pairs.same && column == row)) {
      weight = pair_weight(s, scaling, r.weight[row], r.shift2[row], c.weight[column], c.shift2[column]);
      if (column >= begin && column < end) {
        weight -= positive_pair_weight(s, scaling, r, row, c, column);
      }
    }
    weights[blockIdx.x * chunk.column_count + place] = narrow<T>(weight);
  }
}

}  // namespace mcfa_fast
