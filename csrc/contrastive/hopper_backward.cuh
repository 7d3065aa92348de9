// mma_backward_kernel with Hopper's own matrix instructions (see warpgroup.cuh), for widths of 64 and 128. A block's two
// warpgroups own 64 rows each, whose latents stay in registers; tiles of 64 columns pass through three stages of shared
// memory. While the weights of one tile are multiplied back onto the latents, the next tile's products follow behind them,
// and the other warpgroups of the multiprocessor compute weights.
#pragma once

#include "../common/warpgroup.cuh"
#include "mma_backward.cuh"

namespace mcfa_fast {

template <int kWidth>
struct HopperShape {
  static constexpr int kThreads = 256;
  static constexpr int kRows = 128;
  static constexpr int kColumns = 64;
  static constexpr int kStages = 3;
  static constexpr int kPanels = kWidth / kPanelWidth;  // of kColumns rows each, side by side
  static constexpr int kPanel = kColumns * kPanelWidth;
  static constexpr int kTile = kPanels * kPanel;
  static constexpr int kAlignment = 1024;
  static constexpr int64_t kShared = kAlignment + (kStages * kTile + kRows * MmaShape<kWidth>::kStride) * 2 +
      (2 * kRows + kStages * 2 * kColumns) * sizeof(float);
  // On Hopper a multiplication takes a quarter of a special function's time, a polynomial about eight.
  static constexpr int kPolynomial = 4;
  static_assert(kRows == kMmaRows);
};

// Starts copying the tile of columns from `first` on to swizzled panels; columns from column_count on become zeros.
template <int kWidth, typename T>
__device__ __forceinline__ void start_panels(T* shared, const T* values, int64_t first, int64_t column_count) {
  using Shape = HopperShape<kWidth>;
  constexpr int kPieces = kWidth / 8;  // of 16 bytes
  for (int piece = threadIdx.x; piece < Shape::kColumns * kPieces; piece += Shape::kThreads) {
    const int row = piece / kPieces;
    const int dimension = piece % kPieces * 8;
    const bool inside = first + row < column_count;
    copy_async(
        shared + dimension / kPanelWidth * Shape::kPanel + swizzled(row, dimension % kPanelWidth),
        values + (inside ? (first + row) * kWidth + dimension : 0), inside);
  }
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(HopperShape<kWidth>::kThreads, kWidth == 64 ? 2 : 1)
    hopper_backward_kernel(const BackwardPairs<T> pairs) {
  if constexpr (kHasWarpgroups) {
    using Shape = HopperShape<kWidth>;
    using Rows = BackwardRows<T, Shape::kRows, Shape::kColumns, 2>;
    const auto begin = reinterpret_cast<uintptr_t>(shared_memory());
    T* columns = reinterpret_cast<T*>((begin + Shape::kAlignment - 1) / Shape::kAlignment * Shape::kAlignment);
    T* rows = columns + Shape::kStages * Shape::kTile;
    float* row_terms = reinterpret_cast<float*>(rows + Shape::kRows * MmaShape<kWidth>::kStride);  // [2][kRows]
    float* column_terms = row_terms + 2 * Shape::kRows;  // kStages of [2][kColumns]
    if (Rows::none(pairs)) {
      return;
    }
    const int lane = threadIdx.x % 32;
    const int warp_row = threadIdx.x / 32 * 16;
    const Rows own(pairs, warp_row + lane / 4);
    const auto range = TileRange::of_split(pairs.column_count, own.kept_columns(), Shape::kColumns);
    const int first_tile = static_cast<int>(range.first);
    const int last_tile = static_cast<int>(range.last);
    const auto start = [&](int tile, int stage) {
      if (tile < last_tile) {
        const int64_t first = static_cast<int64_t>(tile) * Shape::kColumns;
        start_panels<kWidth>(columns + stage * Shape::kTile, pairs.columns, first, own.kept_columns());
        start_terms<Shape::kThreads>(
            column_terms + stage * 2 * Shape::kColumns, pairs.column_terms, first, own.kept_columns(), Shape::kColumns);
      }
      copy_async_commit();
    };
    start_copy<kWidth, Shape::kThreads>(rows, pairs.rows, own.first_row(), pairs.row_count, Shape::kRows);
    start_terms<Shape::kThreads>(row_terms, pairs.row_terms, own.first_row(), pairs.row_count, Shape::kRows);
    copy_async_commit();
    start(first_tile, 0);
    start(first_tile + 1, 1);
    copy_async_wait<2>();
    barrier();  // the rows are there
    uint32_t a_rows[kWidth / 16][4];
#pragma unroll
    for (int depth = 0; depth < kWidth; depth += 16) {
      load_rows<kWidth>(a_rows[depth / 16], rows + warp_row * MmaShape<kWidth>::kStride, depth);
    }

    float grad[Shape::kPanels][8][4] = {};
    int stage = 0;
    for (int tile = first_tile; tile < last_tile; ++tile) {
      const T* latents = columns + stage * Shape::kTile;
      copy_async_wait<1>();
      publish_shared();
      barrier();  // everybody's part of this tile is there
      float s[1][8][4];
      warpgroup_begin();
#pragma unroll
      for (int depth = 0; depth < kWidth; depth += 16) {
        warpgroup_multiply<T, Operand::kRowsAreColumns>(
            s[0], a_rows[depth / 16], latents + depth / kPanelWidth * Shape::kPanel, 0, depth % kPanelWidth, depth > 0);
      }
      warpgroup_commit();
      warpgroup_wait<0>();  // for these products, and those of the weights of the tile before
      keep_in_place(s[0]);
      barrier();  // everybody is done with the tile before
      start(tile + 2, (stage + 2) % Shape::kStages);
      own.template weigh<Shape::kPolynomial>(
          s, tile, row_terms, column_terms + stage * 2 * Shape::kColumns);
      uint32_t a[Shape::kColumns / 16][4];
#pragma unroll
      for (int part = 0; part < Shape::kColumns / 16; ++part) {
        pack_weights<T>(a[part], s[0][2 * part], s[0][2 * part + 1]);
      }
      warpgroup_begin();
#pragma unroll
      for (int part = 0; part < Shape::kColumns / 16; ++part) {
#pragma unroll
        for (int panel = 0; panel < Shape::kPanels; ++panel) {
          warpgroup_multiply<T, Operand::kRowsAreDepth>(
              grad[panel], a[part], latents + panel * Shape::kPanel, 16 * part, 0, true);
        }
      }
      warpgroup_commit();
      stage = (stage + 1) % Shape::kStages;
    }
    copy_async_wait<0>();
    warpgroup_wait<0>();
#pragma unroll
    for (int panel = 0; panel < Shape::kPanels; ++panel) {
      keep_in_place(grad[panel]);
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const auto& from = grad[panel][n];
        own.store(kWidth, 8 * panel + n, 0, from[0], from[1]);
        own.store(kWidth, 8 * panel + n, 1, from[2], from[3]);
      }
    }
  }
}

}  // namespace mcfa_fast
