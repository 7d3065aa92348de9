// What the pair kernels on the matrix units share: float16 and bfloat16 latents padded to a width of 64, 128 or 256,
// products accumulated in float32. A block owns 128 rows and visits tiles of columns; while it works on one, the next is
// on its way to shared memory. Each warp owns whole rows of a tile, so that the weights of the backward pass, which
// leave one product as accumulators, enter the next as operands without leaving the registers.
#pragma once

#include "scaling.cuh"

namespace mcfa_fast {

template <int kWidth>
struct MmaShape {
  static constexpr int kRowBlocks = kWidth == 64 ? 2 : 1;  // blocks of 16 rows of a warp
  static constexpr int kWarps = kWidth == 64 ? 4 : 8;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRows = 16 * kRowBlocks * kWarps;
  static constexpr int kForwardBlocks = kWidth == 64 ? 4 : 2;  // that a multiprocessor has registers for
  static constexpr int kColumns = kWidth == 256 ? 32 : 64;
  static constexpr int kStride = kWidth + 8;  // shifts each row by 4 banks, so that 8 rows at once meet no conflict
  static constexpr int64_t kTile = kColumns * kStride;
  static constexpr int64_t kForwardShared = (kRows * kStride + 2 * kTile) * 2;
  static constexpr int64_t kSymmetricShared = kForwardShared + kWarps * kColumns * sizeof(float);
  static constexpr int64_t kBackwardShared = kForwardShared + (2 * kRows + 2 * 2 * kColumns) * sizeof(float);
  static_assert(kRows == 128);
};
constexpr int kMmaRows = 128;

// Copies rows to shared memory, kCount by kCount, by kThreads threads and 16 bytes at a time; rows from row_count on become
// zeros. A thread's pieces of kCount rows lie one below the other in a tile whose rows are kStride elements apart.
template <typename T, int kWidth, int kCount, int kThreads, int kStride = MmaShape<kWidth>::kStride>
class RowCopies {
 public:
  __device__ __forceinline__ RowCopies(const T* values, int64_t first, int64_t row_count)
      : from_(values + (first + row_in_tile()) * kWidth + column()), left_(row_count - first - row_in_tile()) {}

  // Starts copying the next rows.
  __device__ __forceinline__ void start(T* tile) {
    start_at(tile + row_in_tile() * kStride + column());
  }

 protected:
  // The thread's first piece in a tile.
  static __device__ __forceinline__ int row_in_tile() {
    return static_cast<int>(threadIdx.x / kPieces);
  }
  static __device__ __forceinline__ int column() {
    return static_cast<int>(threadIdx.x % kPieces * 8);
  }
  // `to` is where it goes.
  __device__ __forceinline__ void start_at(T* to) {
#pragma unroll
    for (int k = 0; k < kCount / kStep; ++k) {
      copy_async(to + k * kStep * kStride, from_ + k * kStep * kWidth, k * kStep < left_);
    }
    from_ += kCount * kWidth;
    left_ -= kCount;
  }

 private:
  static constexpr int kPieces = kWidth / 8;           // of a row
  static constexpr int kStep = kThreads / kPieces;  // rows from one piece of a thread to its next
  static_assert(kThreads % kPieces == 0 && kCount % kStep == 0);
  const T* from_;
  int64_t left_;
};

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

// Calls visit(tile, stage) for every tile, while start(stage), called once for each of them and one tile ahead, copies the
// next to the other of two stages; and after(tile) when all threads have visited it. Copies that are already under way
// come with the first.
template <typename Start, typename Visit, typename After>
__device__ __forceinline__ void for_each_tile(
    const TileRange& tiles, const Start& start, const Visit& visit, const After& after) {
  const int last = static_cast<int>(tiles.last);
  int tile = static_cast<int>(tiles.first);
  if (tile < last) {
    start(0);
  }
  copy_async_commit();
  for (int stage = 0; tile < last; ++tile, stage = 1 - stage) {
    if (tile + 1 < last) {
      start(1 - stage);
    }
    copy_async_commit();
    copy_async_wait<1>();
    barrier();  // everybody's part of this tile is there
    visit(tile, stage);
    barrier();  // this tile has been read
    after(tile);
  }
  copy_async_wait<0>();
}

}  // namespace mcfa_fast
