// mma_backward_kernel with Hopper's own matrix instructions (see warpgroup.cuh), for widths of 64 and 128. A block's two
// warpgroups own 64 rows each; tiles of 64 columns pass through three stages of shared memory. The products of a tile
// follow behind those of the weights of the tile before; while one block waits for both, another computes weights (at a
// width of 64; at 128, a multiprocessor has registers for one block only).
//
// The rows of the first product come from shared memory: of fragments kept in registers through the loop, ptxas (12.8,
// 13.0) let other values take the place.
#pragma once

#include "../../common/warpgroup.cuh"
#include "mma_backward.cuh"

namespace mcfa_fast {

template <int kWidth>
struct HopperShape {
  static constexpr int kThreads = 256;
  static constexpr int kRows = 128;
  static constexpr int kColumns = 64;
  static constexpr int kStages = 3;
  static constexpr int kPanels = kWidth / kPanelWidth;  // a tile is cut into, side by side
  static constexpr int kTile = kColumns * kWidth;
  static constexpr int kAlignment = 1024;
  static constexpr int64_t kShared = kAlignment + (kStages * kTile + kRows * kWidth) * 2 +
      (2 * kRows + kStages * 2 * kColumns) * sizeof(float);
  static_assert(kRows == kMmaRows);
};

// RowCopies to swizzled panels.
template <typename T, int kWidth, int kCount>
class PanelCopies : public RowCopies<T, kWidth, kCount, HopperShape<kWidth>::kThreads, kPanelWidth> {
  using Base = RowCopies<T, kWidth, kCount, HopperShape<kWidth>::kThreads, kPanelWidth>;
  // A thread's pieces are whole groups of 8 rows apart, and therefore swizzled alike.
  static_assert(HopperShape<kWidth>::kThreads / (kWidth / 8) % 8 == 0);

 public:
  using Base::Base;
  __device__ __forceinline__ void start(T* tile) {
    T* panel = tile + Base::column() / kPanelWidth * kCount * kPanelWidth;
    Base::start_at(panel + swizzled(Base::row_in_tile(), Base::column() % kPanelWidth));
  }
};

// With kPolynomial a quarter of the exponentials is computed without the unit for special functions.
template <typename T, int kWidth, bool kPolynomial>
__global__ void __launch_bounds__(HopperShape<kWidth>::kThreads, kWidth == 64 ? 2 : 1)
    hopper_backward_kernel(const BackwardPairs<T> pairs) {
  if constexpr (kHasWarpgroups) {
    using Shape = HopperShape<kWidth>;
    using Rows = BackwardRows<T, Shape::kRows, Shape::kColumns, 2>;
    const auto behind = reinterpret_cast<uintptr_t>(shared_memory()) % Shape::kAlignment;
    T* columns = reinterpret_cast<T*>(shared_memory() + (Shape::kAlignment - behind) % Shape::kAlignment);
    T* rows = columns + Shape::kStages * Shape::kTile;
    float* row_terms = reinterpret_cast<float*>(rows + Shape::kRows * kWidth);  // [2][kRows]
    float* column_terms = row_terms + 2 * Shape::kRows;                         // kStages of [2][kColumns]
    if (Rows::none(pairs)) {
      return;
    }
    const int warp = threadIdx.x / 32;
    const Rows own(pairs, warp * 16 + threadIdx.x % 32 / 4);
    // The warpgroup's rows in the first panel, and the first tile of columns.
    const auto own_rows = TileDescriptor::of(shared_address(rows + warp / 4 * 64 * kPanelWidth));
    const auto all_columns = TileDescriptor::of(shared_address(columns));
    const auto range = TileRange::of_split(pairs.column_count, own.kept_columns, Shape::kColumns);
    const int first_tile = static_cast<int>(range.first);
    const int last_tile = static_cast<int>(range.last);
    const int64_t first_column = range.first * Shape::kColumns;
    PanelCopies<T, kWidth, Shape::kColumns> copies(pairs.columns, first_column, own.kept_columns);
    TermCopies<Shape::kColumns> term_copies(pairs.column_terms, first_column, own.kept_columns);
    const auto start = [&](int tile, int stage) {
      if (tile < last_tile) {
        copies.start(columns + stage * Shape::kTile);
        term_copies.start(column_terms + stage * 2 * Shape::kColumns);
      }
      copy_async_commit();
    };
    PanelCopies<T, kWidth, Shape::kRows>(pairs.rows, own.first_row(), pairs.row_count).start(rows);
    TermCopies<Shape::kRows>(pairs.row_terms, own.first_row(), pairs.row_count).start(row_terms);
    start(first_tile, 0);  // with the rows
    start(first_tile + 1, 1);

    constexpr int kParts = Shape::kColumns / 16;
    uint32_t a[kParts][4] = {};
    float grad[Shape::kPanels][8][4] = {};
    const auto wait_for_products = [&] {
      warpgroup_wait<0>();
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        keep_in_place(a[part]);
      }
    };
    int stage = 0;
    for (int tile = first_tile; tile < last_tile; ++tile) {
      const auto latents = all_columns.at(stage * Shape::kTile / kPanelWidth, 0);
      copy_async_wait<1>();
      publish_shared();
      barrier();  // everybody's part of this tile is there
      float s[1][8][4];
      warpgroup_begin();
#pragma unroll
      for (int depth = 0; depth < kWidth; depth += 16) {
        const int panel = depth / kPanelWidth;
        const int column = depth % kPanelWidth;
        warpgroup_multiply<T>(
            s[0], own_rows.at(panel * Shape::kRows, column), latents.at(panel * Shape::kColumns, column), depth > 0);
      }
      warpgroup_commit();
      wait_for_products();  // and for those of the weights of the tile before
      keep_in_place(s[0]);
      barrier();  // everybody is done with the tile before
      start(tile + 2, (stage + 2) % Shape::kStages);
      own.template weigh<kPolynomial>(s, tile, row_terms, column_terms + stage * 2 * Shape::kColumns);
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        pack_weights<T>(a[part], s[0][2 * part], s[0][2 * part + 1]);
      }
      warpgroup_begin();
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
#pragma unroll
        for (int panel = 0; panel < Shape::kPanels; ++panel) {
          warpgroup_accumulate<T>(grad[panel], a[part], latents.at(panel * Shape::kColumns + 16 * part, 0));
        }
      }
      warpgroup_commit();
      stage = (stage + 1) % Shape::kStages;
    }
    copy_async_wait<0>();
    wait_for_products();
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
  } else {
    MCFA_DEVICE_ASSERT(false, "this build has no code for Hopper's matrix instructions");
  }
}

}  // namespace mcfa_fast
