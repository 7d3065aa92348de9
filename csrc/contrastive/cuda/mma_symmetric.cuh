// Log-sum-exps of rows over all other rows on the matrix units (see mma.cuh): each pair is visited once, for both of its
// rows.
#pragma once

#include "mma.cuh"

namespace mcfa_fast {

// The rows cut into at most `most` chunks of whole blocks of 128. A block takes a pair of chunks, and what a chunk's rows
// sum up over the columns of chunk c is their split c: every sum has one owner, and memory for the sums is `most` numbers
// a row at most.
struct SymmetricChunks {
  int64_t rows;  // of a chunk
  int64_t count;

  static SymmetricChunks of(int64_t rows, int64_t most) {
    const int64_t blocks = (rows + kMmaRows - 1) / kMmaRows;
    const int64_t of_chunk = blocks > most ? (blocks + most - 1) / most : 1;
    return {of_chunk * kMmaRows, (blocks + of_chunk - 1) / of_chunk};
  }
  int64_t pairs() const {
    return count * (count + 1) / 2;
  }
};

struct ChunkPair {
  int64_t row;
  int64_t column;  // >= row

  // Pairs of different chunks come first, for they take twice as long.
  static __device__ __forceinline__ ChunkPair of(int64_t index, int64_t count) {
    const int64_t different = count * (count - 1) / 2;
    if (index >= different) {
      return {index - different, index - different};
    }
    int64_t column = 1;
    while (column * (column + 1) / 2 <= index) {
      ++column;
    }
    return {index - column * (column - 1) / 2, column};
  }
};

// Adds up each of the first kCount numbers over the 8 lanes that are equal modulo 4, each step halving how many of them a
// lane still looks after. A lane ends with the sums of the numbers [returned, returned + kCount / 8) in front.
template <int kCount, int kMask = 16, int kAll>
__device__ __forceinline__ int sum_over_rows(float (&numbers)[kAll]) {
  if constexpr (kMask < 4) {
    return 0;
  } else {
    constexpr int kHalf = kCount / 2;
    const bool upper = threadIdx.x & kMask;
#pragma unroll
    for (int k = 0; k < kHalf; ++k) {
      const float given = upper ? numbers[k] : numbers[k + kHalf];
      const float kept = upper ? numbers[k + kHalf] : numbers[k];
      numbers[k] = kept + shuffle_xor(given, kMask);
    }
    return (upper ? kHalf : 0) + sum_over_rows<kHalf, kMask / 2>(numbers);
  }
}

// Where the known maximum can stand in for the running one; else mma_forward_kernel does the work. The exponentials of a
// tile are added up along its rows, in registers, and down its columns, through shared memory; only blocks of rows meet
// themselves as columns in both orders.
template <typename T, int kWidth>
__global__ void __launch_bounds__(MmaShape<kWidth>::kThreads, MmaShape<kWidth>::kForwardBlocks)
    mma_symmetric_kernel(const ForwardPairs<T> pairs, const SymmetricChunks chunks) {
  using Shape = MmaShape<kWidth>;
  T* rows = reinterpret_cast<T*>(shared_memory());
  T* columns = rows + Shape::kRows * Shape::kStride;                             // two tiles
  float* column_sums = reinterpret_cast<float*>(columns + 2 * Shape::kTile);  // [kWarps][kColumns]
  const auto scaling = DeviceScaling<float>::read(pairs.temperature, pairs.normalized);
  if (!scaling.bounded) {
    return;
  }
  const int64_t kept = kept_count(pairs.kept_rows, pairs.row_count);
  const auto chunk = ChunkPair::of(blockIdx.x, chunks.count);
  const auto end_of = [&](int64_t index) {
    const int64_t end = (index + 1) * chunks.rows;
    return end < kept ? end : kept;
  };
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int warp_row = warp * 16 * Shape::kRowBlocks;
  constexpr int kSlots = 2 * Shape::kRowBlocks;
  constexpr int kOwn = Shape::kColumns / 4;  // columns of a tile that a thread meets
  const auto place_of = [&](int slot) { return warp_row + lane / 4 + 8 * slot; };
  const auto column_of = [&](int k) { return k / 2 * 8 + lane % 4 * 2 + k % 2; };

  for (int64_t first_row = chunk.row * chunks.rows; first_row < end_of(chunk.row); first_row += Shape::kRows) {
    // Within a chunk, the first block of rows begins the sums, also those of the columns that it meets.
    const bool begins = first_row == chunk.row * chunks.rows;
    float sums[kSlots] = {};
    const int64_t begin = chunk.row < chunk.column ? chunk.column * chunks.rows : first_row;
    const TileRange tiles{begin / Shape::kColumns, (end_of(chunk.column) + Shape::kColumns - 1) / Shape::kColumns};
    RowCopies<T, kWidth, Shape::kColumns, Shape::kThreads> copies(pairs.columns, begin, kept);
    const auto start = [&](int stage) { copies.start(columns + stage * Shape::kTile); };
    const auto visit = [&](int tile, int stage) {
      float s[Shape::kRowBlocks][Shape::kColumns / 8][4];
      multiply_tile<kWidth>(s, rows + warp_row * Shape::kStride, columns + stage * Shape::kTile);
#pragma unroll
      for (int m = 0; m < Shape::kRowBlocks; ++m) {
#pragma unroll
        for (int n = 0; n < Shape::kColumns / 8; ++n) {
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            s[m][n][k] = exp2_fast(s[m][n][k] * scaling.scale2 - scaling.scale2);
          }
        }
      }
      const int64_t first_column = static_cast<int64_t>(tile) * Shape::kColumns;
      if (first_column + Shape::kColumns > kept || first_column < first_row + Shape::kRows) {
        const auto left = [&](int64_t first, int most) {
          return kept - first < most ? static_cast<int>(kept - first) : most;
        };
        const int rows_left = left(first_row, Shape::kRows);
        const int columns_left = left(first_column, Shape::kColumns);
        const int diagonal = static_cast<int>(first_column - first_row);
#pragma unroll
        for (int k = 0; k < kOwn; ++k) {
#pragma unroll
          for (int slot = 0; slot < kSlots; ++slot) {
            const int place = place_of(slot);
            if (column_of(k) >= columns_left || place >= rows_left || column_of(k) + diagonal == place) {
              s[slot / 2][k / 2][slot % 2 * 2 + k % 2] = 0;
            }
          }
        }
      }
      float down[kOwn];
#pragma unroll
      for (int k = 0; k < kOwn; ++k) {
        down[k] = s[0][k / 2][k % 2];
#pragma unroll
        for (int slot = 1; slot < kSlots; ++slot) {
          down[k] += s[slot / 2][k / 2][slot % 2 * 2 + k % 2];
        }
      }
#pragma unroll
      for (int slot = 0; slot < kSlots; ++slot) {
        float along = 0;
#pragma unroll
        for (int k = 0; k < kOwn; ++k) {
          along += s[slot / 2][k / 2][slot % 2 * 2 + k % 2];
        }
        sums[slot] += along;
      }
      const int first = sum_over_rows<kOwn>(down);
#pragma unroll
      for (int k = 0; k < kOwn / 8; ++k) {
        column_sums[warp * Shape::kColumns + column_of(first + k)] = down[k];
      }
    };
    const auto add_columns = [&](int tile) {
      const int64_t first_column = static_cast<int64_t>(tile) * Shape::kColumns;
      const bool both_orders = first_column < first_row + Shape::kRows;
      if (both_orders || threadIdx.x >= Shape::kColumns || first_column + threadIdx.x >= kept) {
        return;
      }
      float sum = 0;
#pragma unroll
      for (int of_warp = 0; of_warp < Shape::kWarps; ++of_warp) {
        sum += column_sums[of_warp * Shape::kColumns + threadIdx.x];
      }
      const int64_t at = chunk.row * pairs.row_count + first_column + threadIdx.x;
      if (begins) {
        pairs.sum[at] = sum;
        pairs.largest[at] = scaling.scale2;
      } else {
        atomic_add(&pairs.sum[at], sum);  // always by this thread: it is spared the wait for what is there
      }
    };
    RowCopies<T, kWidth, Shape::kRows, Shape::kThreads>(pairs.rows, first_row, pairs.row_count).start(rows);
    for_each_tile(tiles, start, visit, add_columns);

#pragma unroll
    for (int slot = 0; slot < kSlots; ++slot) {
#pragma unroll
      for (int mask = 2; mask > 0; mask /= 2) {
        sums[slot] += shuffle_xor(sums[slot], mask);
      }
      const int64_t row = first_row + place_of(slot);
      if (lane % 4 == 0 && row < kept) {
        const int64_t at = chunk.column * pairs.row_count + row;
        pairs.sum[at] = begins || chunk.row < chunk.column ? sums[slot] : pairs.sum[at] + sums[slot];
        pairs.largest[at] = scaling.scale2;
      }
    }
  }
}

}  // namespace mcfa_fast
