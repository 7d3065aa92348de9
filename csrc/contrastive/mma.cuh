// The pair kernels on the matrix units: float16 and bfloat16 latents padded to a width of 64, 128 or 256, products
// accumulated in float32. A block owns 128 rows and visits all tiles of columns of its split; while it works on one, the
// next is on its way to shared memory. Each warp owns whole rows of a tile, so that the weights of the backward pass,
// which leave one product as accumulators, enter the next as operands without leaving the registers.
#pragma once

#include "scaling.cuh"

namespace mcfa_fast {

template <int kWidth>
struct MmaShape {
  static constexpr int kRowBlocks = kWidth == 64 ? 2 : 1;  // blocks of 16 rows of a warp
  static constexpr int kWarps = kWidth == 64 ? 4 : 8;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRows = 16 * kRowBlocks * kWarps;
  static constexpr int kColumns = kWidth == 256 ? 32 : 64;
  static constexpr int kStride = kWidth + 8;  // shifts each row by 4 banks, so that 8 rows at once meet no conflict
  static constexpr int64_t kTile = kColumns * kStride;
  static constexpr int64_t kForwardShared = (kRows * kStride + 2 * kTile) * 2;
  static constexpr int64_t kBackwardShared = kForwardShared + (2 * kRows + 2 * 2 * kColumns) * sizeof(float);
  static_assert(kRows == 128);
};
constexpr int kMmaRows = 128;

// Starts copying `count` rows from `first` on; rows from row_count on become zeros.
template <int kWidth, typename T>
__device__ __forceinline__ void start_copy(T* shared, const T* values, int64_t first, int64_t row_count, int count) {
  constexpr int kPieces = kWidth / 8;  // of 16 bytes
  for (int piece = threadIdx.x; piece < count * kPieces; piece += MmaShape<kWidth>::kThreads) {
    const int row = piece / kPieces;
    const int column = piece % kPieces * 8;
    const bool inside = first + row < row_count;
    copy_async(
        shared + row * MmaShape<kWidth>::kStride + column, values + (inside ? (first + row) * kWidth + column : 0), inside);
  }
}

// The operand of 16 rows and the 16 dimensions from `depth` on.
template <int kWidth, typename T>
__device__ __forceinline__ void load_rows(uint32_t (&fragment)[4], const T* rows, int depth) {
  const int lane = threadIdx.x % 32;
  load_matrices(fragment, rows + (lane % 16) * MmaShape<kWidth>::kStride + depth + lane / 16 * 8);
}

// s = rows · columns^T for the warp's rows: s[m][n] is the accumulator of row block m and columns 8n..8n+7.
template <int kWidth, typename T>
__device__ __forceinline__ void multiply_tile(
    float (&s)[MmaShape<kWidth>::kRowBlocks][MmaShape<kWidth>::kColumns / 8][4], const T* warp_rows, const T* columns) {
  using Shape = MmaShape<kWidth>;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int m = 0; m < Shape::kRowBlocks; ++m) {
#pragma unroll
    for (int n = 0; n < Shape::kColumns / 8; ++n) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        s[m][n][k] = 0;
      }
    }
  }
#pragma unroll
  for (int depth = 0; depth < kWidth; depth += 16) {
    uint32_t a[Shape::kRowBlocks][4];
#pragma unroll
    for (int m = 0; m < Shape::kRowBlocks; ++m) {
      load_rows<kWidth>(a[m], warp_rows + m * 16 * Shape::kStride, depth);
    }
#pragma unroll
    for (int n = 0; n < Shape::kColumns / 8; n += 2) {
      uint32_t b[4];
      load_matrices(b, columns + (n * 8 + lane / 16 * 8 + lane % 8) * Shape::kStride + depth + lane / 8 % 2 * 8);
#pragma unroll
      for (int m = 0; m < Shape::kRowBlocks; ++m) {
        multiply_accumulate<T>(s[m][n], a[m], b[0], b[1]);
        multiply_accumulate<T>(s[m][n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(MmaShape<kWidth>::kThreads) mma_forward_kernel(const ForwardPairs<T> pairs) {
  using Shape = MmaShape<kWidth>;
  T* rows = reinterpret_cast<T*>(shared_memory());
  T* columns = rows + Shape::kRows * Shape::kStride;  // two tiles
  const auto scaling = DeviceScaling<float>::read(pairs.temperature, pairs.normalized);
  const int64_t kept_columns = kept_count(pairs.kept_columns, pairs.column_count);
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * Shape::kRows;
  if (first_row >= kept_count(pairs.kept_rows, pairs.row_count)) {
    return;
  }
  const int lane = threadIdx.x % 32;
  const int warp_row = threadIdx.x / 32 * 16 * Shape::kRowBlocks;
  constexpr int kSlots = 2 * Shape::kRowBlocks;  // the thread's rows: 8 apart, from row_of(0) on
  const auto row_of = [&](int slot) { return first_row + warp_row + lane / 4 + 8 * slot; };
  LogSum<float> sums[kSlots];
  LogSum<float> positives[kSlots];
#pragma unroll
  for (int slot = 0; slot < kSlots; ++slot) {
    sums[slot] = positives[slot] = empty_sum(scaling);
  }
  // All positives of the block's rows lie in these columns.
  const int64_t last_row = (first_row + Shape::kRows < pairs.row_count ? first_row + Shape::kRows : pairs.row_count) - 1;
  const int64_t positives_begin = pairs.begin == nullptr ? kept_columns : pairs.begin[first_row];
  const int64_t positives_end = pairs.begin == nullptr ? 0 : pairs.end[last_row];

  const auto tiles = TileRange::of_split(pairs.column_count, kept_columns, Shape::kColumns);
  start_copy<kWidth>(rows, pairs.rows, first_row, pairs.row_count, Shape::kRows);
  if (tiles.first < tiles.last) {
    start_copy<kWidth>(columns, pairs.columns, tiles.first * Shape::kColumns, kept_columns, Shape::kColumns);
  }
  copy_async_commit();
  for (int64_t tile = tiles.first; tile < tiles.last; ++tile) {
    const int stage = (tile - tiles.first) % 2;
    if (tile + 1 < tiles.last) {
      start_copy<kWidth>(
          columns + (1 - stage) * Shape::kTile, pairs.columns, (tile + 1) * Shape::kColumns, kept_columns, Shape::kColumns);
    }
    copy_async_commit();
    copy_async_wait<1>();
    barrier();  // everybody's part of this tile is there
    float s[Shape::kRowBlocks][Shape::kColumns / 8][4];
    multiply_tile<kWidth>(s, rows + warp_row * Shape::kStride, columns + stage * Shape::kTile);

    const int64_t first_column = tile * Shape::kColumns;
    const int64_t end_column = first_column + Shape::kColumns;
    const bool masked = end_column > kept_columns ||
        (pairs.same && first_column < first_row + Shape::kRows && end_column > first_row);
    const bool positive = positives_begin < end_column && positives_end > first_column;
#pragma unroll
    for (int slot = 0; slot < kSlots; ++slot) {
      const auto product = [&](int k) { return s[slot / 2][k / 2][slot % 2 * 2 + k % 2]; };
      const auto column_of = [&](int k) { return first_column + k / 2 * 8 + lane % 4 * 2 + k % 2; };
      const auto other = [&](int k) {
        const int64_t column = column_of(k);
        return column < kept_columns && !(pairs.same && column == row_of(slot)) ? product(k) : -INFINITY;
      };
      if (masked) {
        add_terms<Shape::kColumns / 4>(sums[slot], scaling, other);
      } else {
        add_terms<Shape::kColumns / 4>(sums[slot], scaling, product);
      }
      if (positive && row_of(slot) < pairs.row_count) {
        const int64_t begin = pairs.begin[row_of(slot)];
        const int64_t end = pairs.end[row_of(slot)];
        add_terms<Shape::kColumns / 4>(positives[slot], scaling, [&](int k) {
          return column_of(k) >= begin && column_of(k) < end ? other(k) : -INFINITY;
        });
      }
    }
    barrier();  // this tile has been read
  }
  copy_async_wait<0>();
#pragma unroll
  for (int slot = 0; slot < kSlots; ++slot) {
#pragma unroll
    for (int mask = 2; mask > 0; mask /= 2) {
      sums[slot].merge(shuffle_xor(sums[slot].largest, mask), shuffle_xor(sums[slot].sum, mask));
      positives[slot].merge(shuffle_xor(positives[slot].largest, mask), shuffle_xor(positives[slot].sum, mask));
    }
    if (lane % 4 == 0 && row_of(slot) < pairs.row_count) {
      const int64_t at = blockIdx.y * pairs.row_count + row_of(slot);
      pairs.largest[at] = sums[slot].largest;
      pairs.sum[at] = sums[slot].sum;
      if (pairs.begin != nullptr) {
        pairs.positive_largest[at] = positives[slot].largest;
        pairs.positive_sum[at] = positives[slot].sum;
      }
    }
  }
}

// Loads what `count` rows or columns bring to the weights of all pairs: terms[2][count].
template <int kThreads>
__device__ __forceinline__ void load_terms(
    float* shared, const PairTerms<float>& terms, int64_t first, int64_t row_count, int count) {
  for (int k = threadIdx.x; k < count; k += kThreads) {
    const bool inside = first + k < row_count;
    shared[k] = inside ? terms.weight[first + k] : 0.f;
    shared[count + k] = inside ? terms.shift2[first + k] : INFINITY;
  }
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(MmaShape<kWidth>::kThreads) mma_backward_kernel(const BackwardPairs<T> pairs) {
  using Shape = MmaShape<kWidth>;
  T* rows = reinterpret_cast<T*>(shared_memory());
  T* columns = rows + Shape::kRows * Shape::kStride;
  float* row_terms = reinterpret_cast<float*>(columns + 2 * Shape::kTile);  // [2][kRows]
  float* column_terms = row_terms + 2 * Shape::kRows;                      // two of [2][kColumns]
  const auto scaling = DeviceScaling<float>::read(pairs.temperature, pairs.normalized);
  const int64_t kept_columns = kept_count(pairs.kept_columns, pairs.column_count);
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * Shape::kRows;
  if (first_row >= kept_count(pairs.kept_rows, pairs.row_count)) {
    return;
  }
  const int lane = threadIdx.x % 32;
  const int warp_row = threadIdx.x / 32 * 16 * Shape::kRowBlocks;
  constexpr int kSlots = 2 * Shape::kRowBlocks;
  const auto place_of = [&](int slot) { return warp_row + lane / 4 + 8 * slot; };
  const auto column_of = [&](int k) { return k / 2 * 8 + lane % 4 * 2 + k % 2; };
  float row_weights[kSlots];
#pragma unroll
  for (int slot = 0; slot < kSlots; ++slot) {
    const int64_t row = first_row + place_of(slot);
    row_weights[slot] = row < pairs.row_count ? pairs.row_terms.weight[row] : 0.f;
  }
  // All positives of the block's rows lie in these columns.
  const int64_t kept_rows = kept_count(pairs.kept_rows, pairs.row_count);
  const int64_t last_row = (first_row + Shape::kRows < kept_rows ? first_row + Shape::kRows : kept_rows) - 1;
  const int64_t positives_begin = pairs.begin[first_row];
  const int64_t positives_end = pairs.end[last_row];

  float grad[Shape::kRowBlocks][kWidth / 8][4];
#pragma unroll
  for (int m = 0; m < Shape::kRowBlocks; ++m) {
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        grad[m][n][k] = 0;
      }
    }
  }

  const auto tiles = TileRange::of_split(pairs.column_count, kept_columns, Shape::kColumns);
  const auto start_tile = [&](int64_t tile, int stage) {
    const int64_t first = tile * Shape::kColumns;
    start_copy<kWidth>(columns + stage * Shape::kTile, pairs.columns, first, kept_columns, Shape::kColumns);
    load_terms<Shape::kThreads>(
        column_terms + stage * 2 * Shape::kColumns, pairs.column_terms, first, kept_columns, Shape::kColumns);
  };
  start_copy<kWidth>(rows, pairs.rows, first_row, pairs.row_count, Shape::kRows);
  load_terms<Shape::kThreads>(row_terms, pairs.row_terms, first_row, pairs.row_count, Shape::kRows);
  if (tiles.first < tiles.last) {
    start_tile(tiles.first, 0);
  }
  copy_async_commit();
  for (int64_t tile = tiles.first; tile < tiles.last; ++tile) {
    const int stage = (tile - tiles.first) % 2;
    if (tile + 1 < tiles.last) {
      start_tile(tile + 1, 1 - stage);
    }
    copy_async_commit();
    copy_async_wait<1>();
    barrier();  // everybody's part of this tile is there
    const T* latents = columns + stage * Shape::kTile;
    const float* terms = column_terms + stage * 2 * Shape::kColumns;
    float s[Shape::kRowBlocks][Shape::kColumns / 8][4];
    multiply_tile<kWidth>(s, rows + warp_row * Shape::kStride, latents);

    const int64_t first_column = tile * Shape::kColumns;
    const int64_t end_column = first_column + Shape::kColumns;
    const bool masked = end_column > kept_columns ||
        (pairs.same && first_column < first_row + Shape::kRows && end_column > first_row);
    const bool positive = positives_begin < end_column && positives_end > first_column;
    if (scaling.bounded && !masked && !positive) {
      // Nearly all tiles: one exponential per pair and nothing to look out for.
#pragma unroll
      for (int k = 0; k < Shape::kColumns / 4; ++k) {
        const float column_weight = terms[column_of(k)];
#pragma unroll
        for (int slot = 0; slot < kSlots; ++slot) {
          float& value = s[slot / 2][k / 2][slot % 2 * 2 + k % 2];
          value = exp2_fast(value * scaling.scale2 - scaling.scale2) * (row_weights[slot] + column_weight);
        }
      }
    } else {
#pragma unroll
      for (int slot = 0; slot < kSlots; ++slot) {
        const int place = place_of(slot);
        const int64_t row = first_row + place;
        const float shift2 = row_terms[Shape::kRows + place];
        const bool row_positive = positive && row < kept_rows;
        const int64_t begin = row_positive ? pairs.begin[row] : 0;
        const int64_t end = row_positive ? pairs.end[row] : 0;
#pragma unroll
        for (int k = 0; k < Shape::kColumns / 4; ++k) {
          float& value = s[slot / 2][k / 2][slot % 2 * 2 + k % 2];
          const int place_in_tile = column_of(k);
          const int64_t column = first_column + place_in_tile;
          float weight = pair_weight(
              value, scaling, row_weights[slot], shift2, terms[place_in_tile], terms[Shape::kColumns + place_in_tile]);
          if (row_positive && column >= begin && column < end) {
            weight -= positive_pair_weight(value, scaling, pairs.row_terms, row, pairs.column_terms, column);
          }
          // Columns beyond the last have zero latents, but their weights must be finite.
          value = (pairs.same && column == row) || column >= kept_columns ? 0.f : weight;
        }
      }
    }
#pragma unroll
    for (int part = 0; part < Shape::kColumns / 16; ++part) {
      uint32_t a[Shape::kRowBlocks][4];
#pragma unroll
      for (int m = 0; m < Shape::kRowBlocks; ++m) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const auto& from = s[m][2 * part + k / 2];
          a[m][k] = pack<T>(from[k % 2 * 2], from[k % 2 * 2 + 1]);
        }
      }
#pragma unroll
      for (int n = 0; n < kWidth / 8; n += 2) {
        uint32_t b[4];
        load_matrices_transposed(b, latents + (part * 16 + lane % 16) * Shape::kStride + n * 8 + lane / 16 * 8);
#pragma unroll
        for (int m = 0; m < Shape::kRowBlocks; ++m) {
          multiply_accumulate<T>(grad[m][n], a[m], b[0], b[1]);
          multiply_accumulate<T>(grad[m][n + 1], a[m], b[2], b[3]);
        }
      }
    }
    barrier();  // this tile has been read
  }
  copy_async_wait<0>();
#pragma unroll
  for (int slot = 0; slot < kSlots; ++slot) {
    const int64_t row = first_row + place_of(slot);
    if (row < pairs.row_count) {
      float* to = pairs.grad + (blockIdx.y * pairs.row_count + row) * kWidth + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < kWidth / 8; ++n) {
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          const float value = grad[slot / 2][n][slot % 2 * 2 + k];
          to[n * 8 + k] = pairs.accumulate ? to[n * 8 + k] + value : value;
        }
      }
    }
  }
}

}  // namespace mcfa_fast
