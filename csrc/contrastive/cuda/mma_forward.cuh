// Log-sum-exps of rows over columns on the matrix units (see mma.cuh), row by row.
#pragma once

#include "mma.cuh"

namespace mcfa_fast {

// Whether a row of the thread's is the column itself is asked in units of the tile, for registers are scarce: the place in
// [0, kSize) of `self` behind `first`, or -1.
template <int kSize>
__device__ __forceinline__ int place_behind(int64_t self, int64_t first) {
  return self >= first && self < first + kSize ? static_cast<int>(self - first) : -1;
}

// kSelves: whether there are pairs.selves to leave out.
template <typename T, int kWidth, bool kSelves>
__global__ void __launch_bounds__(MmaShape<kWidth>::kThreads, MmaShape<kWidth>::kForwardBlocks)
    mma_forward_kernel(const ForwardPairs<T> pairs) {
  using Shape = MmaShape<kWidth>;
  T* rows = reinterpret_cast<T*>(shared_memory());
  T* columns = rows + Shape::kRows * Shape::kStride;  // two tiles
  const auto scaling = DeviceScaling<float>::read(pairs.temperature, pairs.normalized);
  const int64_t kept_columns = kept_count(pairs.kept_columns, pairs.column_count);
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * Shape::kRows;
  const bool only_positives = pairs.by_symmetry && scaling.bounded;
  if (first_row >= kept_count(pairs.kept_rows, pairs.row_count) || (only_positives && pairs.begin == nullptr)) {
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

  auto tiles = TileRange::of_split(pairs.column_count, kept_columns, Shape::kColumns);
  if (only_positives) {
    tiles = tiles.within(positives_begin, positives_end, Shape::kColumns);
  }
  RowCopies<T, kWidth, Shape::kColumns, Shape::kThreads> copies(
      pairs.columns, tiles.first * Shape::kColumns, kept_columns);
  const auto start = [&](int stage) { copies.start(columns + stage * Shape::kTile); };
  const auto visit = [&](int tile, int stage) {
    float s[Shape::kRowBlocks][Shape::kColumns / 8][4];
    multiply_tile<kWidth>(s, rows + warp_row * Shape::kStride, columns + stage * Shape::kTile);

    const int64_t first_column = static_cast<int64_t>(tile) * Shape::kColumns;
    if constexpr (kSelves) {
      const auto leave_out = [&](int slot, int k, bool self) {
        float& value = s[slot / 2][k / 2][slot % 2 * 2 + k % 2];
        value = self ? -INFINITY : value;
      };
      const auto place_of = [&](int k) { return k / 2 * 8 + lane % 4 * 2 + k % 2; };
      const int64_t* of_rows = pairs.selves.of_rows;
      const int64_t* of_columns = pairs.selves.of_columns;
      if (of_rows != nullptr) {
#pragma unroll
        for (int slot = 0; slot < kSlots; ++slot) {
          const bool inside = row_of(slot) < pairs.row_count;
          const int self = place_behind<Shape::kColumns>(inside ? of_rows[row_of(slot)] : -1, first_column);
#pragma unroll
          for (int k = 0; k < Shape::kColumns / 4; ++k) {
            leave_out(slot, k, place_of(k) == self);
          }
        }
      } else {
#pragma unroll
        for (int k = 0; k < Shape::kColumns / 4; ++k) {
          const int64_t column = first_column + place_of(k);
          const int self = place_behind<Shape::kRows>(column < pairs.column_count ? of_columns[column] : -1, first_row);
#pragma unroll
          for (int slot = 0; slot < kSlots; ++slot) {
            leave_out(slot, k, warp_row + lane / 4 + 8 * slot == self);
          }
        }
      }
    }
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
      if (!only_positives) {
        if (masked) {
          add_terms<Shape::kColumns / 4>(sums[slot], scaling, other);
        } else {
          add_terms<Shape::kColumns / 4>(sums[slot], scaling, product);
        }
      }
      if (positive && row_of(slot) < pairs.row_count) {
        const int64_t begin = pairs.begin[row_of(slot)];
        const int64_t end = pairs.end[row_of(slot)];
        add_terms<Shape::kColumns / 4>(positives[slot], scaling, [&](int k) {
          return column_of(k) >= begin && column_of(k) < end ? other(k) : -INFINITY;
        });
      }
    }
  };
  RowCopies<T, kWidth, Shape::kRows, Shape::kThreads>(pairs.rows, first_row, pairs.row_count).start(rows);
  for_each_tile(tiles, start, visit, [](int) {});

#pragma unroll
  for (int slot = 0; slot < kSlots; ++slot) {
#pragma unroll
    for (int mask = 2; mask > 0; mask /= 2) {
      sums[slot].merge(shuffle_xor(sums[slot].largest, mask), shuffle_xor(sums[slot].sum, mask));
      positives[slot].merge(shuffle_xor(positives[slot].largest, mask), shuffle_xor(positives[slot].sum, mask));
    }
    if (lane % 4 == 0 && row_of(slot) < pairs.row_count) {
      if (!only_positives) {
        const int64_t at = blockIdx.y * pairs.row_count + row_of(slot);
        pairs.largest[at] = sums[slot].largest;
        pairs.sum[at] = sums[slot].sum;
        for (int64_t split = gridDim.y + blockIdx.y; split < pairs.splits; split += gridDim.y) {
          pairs.largest[split * pairs.row_count + row_of(slot)] = -INFINITY;
          pairs.sum[split * pairs.row_count + row_of(slot)] = 0;
        }
      }
      if (pairs.begin != nullptr) {
        const int64_t at = blockIdx.y * pairs.row_count + row_of(slot);
        pairs.positive_largest[at] = positives[slot].largest;
        pairs.positive_sum[at] = positives[slot].sum;
      }
    }
  }
}

}  // namespace mcfa_fast
