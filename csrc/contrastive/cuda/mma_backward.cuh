// Gradients of rows, weights of pairs times columns, on the matrix units (see mma.cuh). Row by row, so that every
// gradient has one owner and no partial gradients need memory.
#pragma once

#include "mma.cuh"

namespace mcfa_fast {

// Copies what rows or columns bring to the weights of all pairs to shared memory, kCount by kCount: [2][kCount].
template <int kCount>
class TermCopies {
 public:
  __device__ __forceinline__ TermCopies(const PairTerms<float>& terms, int64_t first, int64_t row_count)
      : terms_(terms), row_(first + threadIdx.x), row_count_(row_count) {}

  __device__ __forceinline__ void start(float* to) {
    if (threadIdx.x < kCount) {
      copy_async_number(to + threadIdx.x, terms_.weight + row_, row_ < row_count_);
      copy_async_number(to + kCount + threadIdx.x, terms_.shift2 + row_, row_ < row_count_);
      row_ += kCount;
    }
  }

 private:
  const PairTerms<float>& terms_;
  int64_t row_;
  const int64_t row_count_;
};

// A thread's rows, kSlots of them, 8 apart, among the kRows of its block, and what it needs of them to weigh pairs with
// tiles of kColumns columns.
template <typename T, int kRows, int kColumns, int kSlots>
struct BackwardRows {
  const BackwardPairs<T>& pairs;
  DeviceScaling<float> scaling;
  int64_t kept_columns;
  int place;  // of the first in the block
  float weights[kSlots];
  // Tiles with positives of the block's rows, and those without columns beyond the last.
  int positives_first;
  int positives_last;
  int whole;

  // Nothing to do for a block that lies beyond the last row.
  static __device__ __forceinline__ bool none(const BackwardPairs<T>& pairs) {
    return static_cast<int64_t>(blockIdx.x) * kRows >= kept_count(pairs.kept_rows, pairs.row_count);
  }

  __device__ __forceinline__ BackwardRows(const BackwardPairs<T>& of_pairs, int first_place)
      : pairs(of_pairs),
        scaling(DeviceScaling<float>::read(pairs.temperature, pairs.normalized)),
        kept_columns(kept_count(pairs.kept_columns, pairs.column_count)),
        place(first_place),
        whole(static_cast<int>(kept_columns / kColumns)) {
    const int64_t last = first_row() + kRows < kept_rows() ? first_row() + kRows : kept_rows();
    positives_first = static_cast<int>(pairs.begin[first_row()] / kColumns);
    positives_last = static_cast<int>((pairs.end[last - 1] + kColumns - 1) / kColumns);
#pragma unroll
    for (int slot = 0; slot < kSlots; ++slot) {
      weights[slot] = row_of(slot) < pairs.row_count ? pairs.row_terms.weight[row_of(slot)] : 0.f;
    }
  }

  // Read again where it is wanted: registers are scarcer.
  __device__ __forceinline__ int64_t kept_rows() const {
    return kept_count(pairs.kept_rows, pairs.row_count);
  }
  static __device__ __forceinline__ int64_t first_row() {
    return static_cast<int64_t>(blockIdx.x) * kRows;
  }
  __device__ __forceinline__ int64_t row_of(int slot) const {
    return first_row() + place + 8 * slot;
  }

  // Turns the thread's products with a tile of columns into weights. row_terms and column_terms are in shared memory.
  // With kPolynomial a quarter of the exponentials is left to the units for multiplication and addition.
  template <bool kPolynomial>
  __device__ __forceinline__ void weigh(
      float (&s)[kSlots / 2][kColumns / 8][4], int tile, const float* row_terms, const float* column_terms) const {
    const auto column_of = [&](int k) { return k / 2 * 8 + static_cast<int>(threadIdx.x % 4 * 2) + k % 2; };
    constexpr int kTiles = kRows / kColumns;  // whose columns are the block's rows, where these are the same
    const bool meets_itself = pairs.same && tile / kTiles == static_cast<int>(blockIdx.x);
    const bool positive = tile >= positives_first && tile < positives_last;
    if (scaling.bounded && tile < whole && !meets_itself && !positive && !pairs.selves.any()) {
      // Nearly all tiles: one exponential per pair and nothing to look out for.
#pragma unroll
      for (int k = 0; k < kColumns / 4; ++k) {
        const float column_weight = column_terms[column_of(k)];
#pragma unroll
        for (int slot = 0; slot < kSlots; ++slot) {
          float& value = s[slot / 2][k / 2][slot % 2 * 2 + k % 2];
          const float exponent = value * scaling.scale2 - scaling.scale2;
          const bool polynomial = kPolynomial && (k * kSlots + slot) % 4 == 0;
          value = (polynomial ? exp2_polynomial(exponent) : exp2_fast(exponent)) * (weights[slot] + column_weight);
        }
      }
      return;
    }
    // Rows and columns count from the first of the block and of the tile.
    const int64_t first_column = static_cast<int64_t>(tile) * kColumns;
    const auto in_tile = [&](int64_t column) {
      const int64_t place_in_tile = column - first_column;
      return static_cast<int>(place_in_tile < 0 ? 0 : place_in_tile < kColumns ? place_in_tile : kColumns);
    };
    const int columns_left = in_tile(kept_columns);
    const int diagonal = meets_itself ? tile % kTiles * kColumns : kRows;
    float shift2[kSlots];
    int begin[kSlots];
    int end[kSlots];
#pragma unroll
    for (int slot = 0; slot < kSlots; ++slot) {
      const bool row_positive = positive && row_of(slot) < kept_rows();
      shift2[slot] = row_terms[kRows + place + 8 * slot];
      begin[slot] = row_positive ? in_tile(pairs.begin[row_of(slot)]) : 0;
      end[slot] = row_positive ? in_tile(pairs.end[row_of(slot)]) : 0;
    }
#pragma unroll
    for (int k = 0; k < kColumns / 4; ++k) {
      const int column = column_of(k);
      const float column_weight = column_terms[column];
      const float column_shift2 = column_terms[kColumns + column];
#pragma unroll
      for (int slot = 0; slot < kSlots; ++slot) {
        float& value = s[slot / 2][k / 2][slot % 2 * 2 + k % 2];
        float weight = pair_weight(value, scaling, weights[slot], shift2[slot], column_weight, column_shift2);
        if (column >= begin[slot] && column < end[slot]) {
          weight -= positive_pair_weight(
              value, scaling, pairs.row_terms, row_of(slot), pairs.column_terms, first_column + column);
        }
        const bool self = column + diagonal == place + 8 * slot ||
            (pairs.selves.any() && is_self(pairs, row_of(slot), first_column + column));
        // Columns beyond the last have zero latents, but their weights must be finite.
        value = self || column >= columns_left ? 0.f : weight;
      }
    }
  }

  // The thread's part of two neighbouring columns, 8 * block + threadIdx.x % 4 * 2 and the next, of the gradient.
  __device__ __forceinline__ void store(int width, int block, int slot, float first, float second) const {
    if (row_of(slot) < pairs.row_count) {
      float* to = pairs.grad + (blockIdx.y * pairs.row_count + row_of(slot)) * width + 8 * block + threadIdx.x % 4 * 2;
      to[0] = pairs.accumulate ? to[0] + first : first;
      to[1] = pairs.accumulate ? to[1] + second : second;
    }
  }
};

// Two weights a register, as the operand of 16 rows and 16 columns, from the accumulators of those columns.
template <typename T>
__device__ __forceinline__ void pack_weights(
    uint32_t (&a)[4], const float (&first_columns)[4], const float (&next_columns)[4]) {
  a[0] = pack<T>(first_columns[0], first_columns[1]);
  a[1] = pack<T>(first_columns[2], first_columns[3]);
  a[2] = pack<T>(next_columns[0], next_columns[1]);
  a[3] = pack<T>(next_columns[2], next_columns[3]);
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(MmaShape<kWidth>::kThreads) mma_backward_kernel(const BackwardPairs<T> pairs) {
  using Shape = MmaShape<kWidth>;
  using Rows = BackwardRows<T, Shape::kRows, Shape::kColumns, 2 * Shape::kRowBlocks>;
  T* rows = reinterpret_cast<T*>(shared_memory());
  T* columns = rows + Shape::kRows * Shape::kStride;
  float* row_terms = reinterpret_cast<float*>(columns + 2 * Shape::kTile);  // [2][kRows]
  float* column_terms = row_terms + 2 * Shape::kRows;                      // two of [2][kColumns]
  if (Rows::none(pairs)) {
    return;
  }
  const int lane = threadIdx.x % 32;
  const int warp_row = threadIdx.x / 32 * 16 * Shape::kRowBlocks;
  const Rows own(pairs, warp_row + lane / 4);
  float grad[Shape::kRowBlocks][kWidth / 8][4] = {};

  const auto tiles = TileRange::of_split(pairs.column_count, own.kept_columns, Shape::kColumns);
  const int64_t first_column = tiles.first * Shape::kColumns;
  RowCopies<T, kWidth, Shape::kColumns, Shape::kThreads> copies(pairs.columns, first_column, own.kept_columns);
  TermCopies<Shape::kColumns> term_copies(pairs.column_terms, first_column, own.kept_columns);
  const auto start = [&](int stage) {
    copies.start(columns + stage * Shape::kTile);
    term_copies.start(column_terms + stage * 2 * Shape::kColumns);
  };
  const auto visit = [&](int tile, int stage) {
    const T* latents = columns + stage * Shape::kTile;
    float s[Shape::kRowBlocks][Shape::kColumns / 8][4];
    multiply_tile<kWidth>(s, rows + warp_row * Shape::kStride, latents);
    own.template weigh<false>(s, tile, row_terms, column_terms + stage * 2 * Shape::kColumns);
#pragma unroll
    for (int part = 0; part < Shape::kColumns / 16; ++part) {
      uint32_t a[Shape::kRowBlocks][4];
#pragma unroll
      for (int m = 0; m < Shape::kRowBlocks; ++m) {
        pack_weights<T>(a[m], s[m][2 * part], s[m][2 * part + 1]);
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
  };
  RowCopies<T, kWidth, Shape::kRows, Shape::kThreads>(pairs.rows, own.first_row(), pairs.row_count).start(rows);
  TermCopies<Shape::kRows>(pairs.row_terms, own.first_row(), pairs.row_count).start(row_terms);
  for_each_tile(tiles, start, visit, [](int) {});

#pragma unroll
  for (int n = 0; n < kWidth / 8; ++n) {
#pragma unroll
    for (int slot = 0; slot < 2 * Shape::kRowBlocks; ++slot) {
      const auto& from = grad[slot / 2][n];
      own.store(kWidth, n, slot, from[slot % 2 * 2], from[slot % 2 * 2 + 1]);
    }
  }
}

}  // namespace mcfa_fast
