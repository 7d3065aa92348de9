// The pair kernels in full precision, on the ordinary arithmetic units: float32 and float64, any width forward. A block
// owns 64 rows and visits all tiles of 64 columns of its split, so that every sum has one owner and a fixed order.
#pragma once

#include "scaling.cuh"

namespace mcfa_fast {

constexpr int kSimtTile = 64;      // rows and columns of a tile
constexpr int kSimtDepth = 16;     // dimensions of the latents taken at a time
constexpr int kSimtThreads = 256;  // 16 x 16, each with 4 x 4 of a tile
constexpr int kSimtStride = kSimtTile + 4;

template <typename T>
constexpr int64_t simt_forward_shared() {
  return 2 * kSimtDepth * kSimtStride * sizeof(T);
}
template <typename T, int kWidth>
constexpr int64_t simt_backward_shared() {
  return simt_forward_shared<T>() + (kSimtTile * kSimtStride + kSimtDepth * kWidth) * sizeof(T);
}

// Copies dimensions [depth, depth + 16) of 64 rows to shared memory, transposed.
template <typename T>
__device__ __forceinline__ void load_depth(
    T* shared, const T* values, int64_t first_row, int64_t row_count, int64_t depth, int64_t width) {
  const int row = threadIdx.x / 4;
  const int k = threadIdx.x % 4 * 4;
  const bool inside = first_row + row < row_count;
  const T* from = values + (first_row + row) * width + depth + k;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    shared[(k + i) * kSimtStride + row] = inside && depth + k + i < width ? from[i] : T(0);
  }
}

// s = the thread's 4 x 4 of rows · columns^T.
template <typename T, typename Pairs>
__device__ __forceinline__ void multiply_tile(
    T (&s)[4][4], const Pairs& pairs, int64_t first_row, int64_t first_column, T* shared) {
  T* rows = shared;
  T* columns = shared + kSimtDepth * kSimtStride;
  const int x = threadIdx.x % 16 * 4;
  const int y = threadIdx.x / 16 * 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      s[i][j] = 0;
    }
  }
  for (int64_t depth = 0; depth < pairs.width; depth += kSimtDepth) {
    barrier();  // the previous slices have been read
    load_depth(rows, pairs.rows, first_row, pairs.row_count, depth, pairs.width);
    load_depth(columns, pairs.columns, first_column, pairs.column_count, depth, pairs.width);
    barrier();
#pragma unroll
    for (int k = 0; k < kSimtDepth; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          s[i][j] += rows[k * kSimtStride + y + i] * columns[k * kSimtStride + x + j];
        }
      }
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kSimtThreads) simt_forward_kernel(const ForwardPairs<T> pairs) {
  T* shared = reinterpret_cast<T*>(shared_memory());
  const auto scaling = DeviceScaling<T>::read(pairs.temperature, pairs.normalized);
  const int64_t kept_columns = kept_count(pairs.kept_columns, pairs.column_count);
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kSimtTile;
  if (first_row >= kept_count(pairs.kept_rows, pairs.row_count)) {
    return;
  }
  const int64_t row = first_row + threadIdx.x / 16 * 4;  // the thread's first
  LogSum<T> sums[4];
  LogSum<T> positives[4];
  for (int i = 0; i < 4; ++i) {
    sums[i] = positives[i] = empty_sum(scaling);
  }
  const auto tiles = TileRange::of_split(pairs.column_count, kept_columns, kSimtTile);
  for (int64_t tile = tiles.first; tile < tiles.last; ++tile) {
    T s[4][4];
    multiply_tile(s, pairs, first_row, tile * kSimtTile, shared);
    const int64_t column = tile * kSimtTile + threadIdx.x % 16 * 4;
    if (pairs.selves.any()) {
#pragma unroll
      for (int k = 0; k < 16; ++k) {
        s[k / 4][k % 4] = is_self(pairs, row + k / 4, column + k % 4) ? T(-INFINITY) : s[k / 4][k % 4];
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const auto other = [&](int j) {
        return column + j < kept_columns && !(pairs.same && column + j == row + i) ? s[i][j] : T(-INFINITY);
      };
      add_terms<4>(sums[i], scaling, other);
      if (pairs.begin != nullptr && row + i < pairs.row_count) {
        const int64_t begin = pairs.begin[row + i];
        const int64_t end = pairs.end[row + i];
        if (begin < column + 4 && end > column) {
          add_terms<4>(positives[i], scaling, [&](int j) {
            return column + j >= begin && column + j < end ? other(j) : T(-INFINITY);
          });
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    for (int mask = 8; mask > 0; mask /= 2) {
      sums[i].merge(shuffle_xor(sums[i].largest, mask), shuffle_xor(sums[i].sum, mask));
      if (pairs.begin != nullptr) {
        positives[i].merge(shuffle_xor(positives[i].largest, mask), shuffle_xor(positives[i].sum, mask));
      }
    }
    if (threadIdx.x % 16 == 0 && row + i < pairs.row_count) {
      const int64_t at = blockIdx.y * pairs.row_count + row + i;
      pairs.largest[at] = sums[i].largest;
      pairs.sum[at] = sums[i].sum;
      if (pairs.begin != nullptr) {
        pairs.positive_largest[at] = positives[i].largest;
        pairs.positive_sum[at] = positives[i].sum;
      }
    }
  }
}

// kWidth dimensions of the gradient, from dimension kWidth * blockIdx.z on.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kSimtThreads, 1) simt_backward_kernel(const BackwardPairs<T> pairs) {
  T* shared = reinterpret_cast<T*>(shared_memory());
  T* weights = shared + 2 * kSimtDepth * kSimtStride;    // [column][row]
  T* latents = weights + kSimtTile * kSimtStride;        // [16 columns][kWidth]
  constexpr int kOutputs = kWidth / 16;
  const auto scaling = DeviceScaling<T>::read(pairs.temperature, pairs.normalized);
  const int64_t kept_columns = kept_count(pairs.kept_columns, pairs.column_count);
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kSimtTile;
  const int64_t first_dimension = static_cast<int64_t>(blockIdx.z) * kWidth;
  if (first_row >= kept_count(pairs.kept_rows, pairs.row_count)) {
    return;
  }
  const int x = threadIdx.x % 16;
  const int y = threadIdx.x / 16 * 4;
  T grad[4][kOutputs];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int d = 0; d < kOutputs; ++d) {
      grad[i][d] = 0;
    }
  }
  const auto tiles = TileRange::of_split(pairs.column_count, kept_columns, kSimtTile);
  for (int64_t tile = tiles.first; tile < tiles.last; ++tile) {
    T s[4][4];
    multiply_tile(s, pairs, first_row, tile * kSimtTile, shared);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t row = first_row + y + i;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int64_t column = tile * kSimtTile + x * 4 + j;
        T weight = 0;
        if (row < pairs.row_count && column < kept_columns && !is_self(pairs, row, column)) {
          const auto& r = pairs.row_terms;
          const auto& c = pairs.column_terms;
          weight = pair_weight(s[i][j], scaling, r.weight[row], r.shift2[row], c.weight[column], c.shift2[column]);
          if (column >= pairs.begin[row] && column < pairs.end[row]) {
            weight -= positive_pair_weight(s[i][j], scaling, r, row, c, column);
          }
        }
        weights[(x * 4 + j) * kSimtStride + y + i] = weight;
      }
    }
    for (int64_t part = 0; part < kSimtTile; part += kSimtDepth) {
      barrier();  // the weights are there, the previous latents have been read
      for (int k = threadIdx.x; k < kSimtDepth * kWidth; k += kSimtThreads) {
        const int64_t column = tile * kSimtTile + part + k / kWidth;
        const int64_t d = first_dimension + k % kWidth;
        latents[k] = column < kept_columns && d < pairs.width ? pairs.columns[column * pairs.width + d] : T(0);
      }
      barrier();
#pragma unroll 4
      for (int k = 0; k < kSimtDepth; ++k) {
#pragma unroll
        for (int d = 0; d < kOutputs; ++d) {
          const T value = latents[k * kWidth + x + 16 * d];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            grad[i][d] += weights[(part + k) * kSimtStride + y + i] * value;
          }
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (first_row + y + i < pairs.row_count) {
      T* to = pairs.grad + (blockIdx.y * pairs.row_count + first_row + y + i) * pairs.width;
#pragma unroll
      for (int d = 0; d < kOutputs; ++d) {
        const int64_t dimension = first_dimension + x + 16 * d;
        if (dimension < pairs.width) {
          to[dimension] = pairs.accumulate ? to[dimension] + grad[i][d] : grad[i][d];
        }
      }
    }
  }
}

}  // namespace mcfa_fast
