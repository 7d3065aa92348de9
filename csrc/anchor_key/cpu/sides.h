// The two sides of the pairs on the CPU: rows in the order of their labels, made ready block by block, so that no second
// copy of a side exists, and the order in which pairs of blocks and of their tiles are visited.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "../../contrastive/cpu/products.h"
#include "../op.h"

namespace mcfa_fast {

// The rows of a side that take part.
struct SortedRows {
  std::vector<int64_t> order;   // sorted row -> row of the input
  std::vector<int64_t> labels;  // ascending

  // Without labels, a row's number is its label.
  SortedRows(int64_t rows, const std::optional<at::Tensor>& given, int64_t ignore_index) {
    const auto values = given ? own_labels(*given) : at::arange(rows);
    const int64_t* label = values.const_data_ptr<int64_t>();
    order.reserve(rows);
    for (int64_t row = 0; row < rows; ++row) {
      if (label[row] != ignore_index) {
        order.push_back(row);
      }
    }
    const auto before = [label](int64_t a, int64_t b) { return label[a] < label[b]; };
    if (!std::is_sorted(order.begin(), order.end(), before)) {
      std::stable_sort(order.begin(), order.end(), before);
    }
    labels.reserve(size());
    for (const int64_t row : order) {
      labels.push_back(label[row]);
    }
  }

  int64_t size() const {
    return static_cast<int64_t>(order.size());
  }
};

// Both sides. Anchors that are their own keys are one side, whose pairs of two blocks or tiles are visited once.
struct Sides {
  SortedRows anchors;
  std::optional<SortedRows> other;
  // Sorted anchor -> the sorted key that is the anchor itself, or -1; empty if none is.
  std::vector<int64_t> selves;

  explicit Sides(const AnchorKeyInputs& inputs)
      : anchors(inputs.anchors.size(0), inputs.anchor_labels, inputs.ignore_index) {
    if (inputs.own_keys()) {
      selves.resize(anchors.size());
      std::iota(selves.begin(), selves.end(), 0);
      return;
    }
    const int64_t key_count = inputs.keys->size(0);
    other.emplace(key_count, inputs.key_labels, inputs.ignore_index);
    if (inputs.self_index) {
      std::vector<int64_t> places(key_count, -1);
      for (int64_t place = 0; place < other->size(); ++place) {
        places[other->order[place]] = place;
      }
      const auto values = own_labels(*inputs.self_index);
      const int64_t* self = values.const_data_ptr<int64_t>();
      selves.reserve(anchors.size());
      for (const int64_t anchor : anchors.order) {
        const bool is_key = self[anchor] >= 0 && self[anchor] < key_count;
        selves.push_back(is_key ? places[self[anchor]] : -1);
      }
    }
  }

  bool own_keys() const {
    return !other.has_value();
  }
  const SortedRows& keys() const {
    return other ? *other : anchors;
  }
};

// Blocks of a side: 2 MiB, but enough rows for tiles to pay and not more than help.
template <typename T>
Tiling blocks_of(const SortedRows& rows, int64_t width) {
  constexpr int64_t kBytes = int64_t{1} << 21;
  return {rows.size(), std::clamp<int64_t>(kBytes / std::max<int64_t>(width * sizeof(T), 1), 2048, 8192)};
}

template <typename T>
struct Block {
  const SortedRows* side;
  int64_t first;  // row of the side
  Latents<T> latents;
  Tiling tiling;

  Block(const SortedRows& rows, const Tiling& blocks, int64_t index, const at::Tensor& input, bool normalize)
      : side(&rows),
        first(blocks.begin(index)),
        latents(input, rows.order.data() + first, blocks.size(index), normalize),
        tiling(Tiling::of(latents.rows())) {}

  int64_t rows() const {
    return latents.rows();
  }
  const int64_t* labels() const {
    return side->labels.data() + first;
  }
};

// Two blocks whose pairs are summed over.
template <typename T>
struct BlockPair {
  const Block<T>& left;   // of anchors
  const Block<T>& right;  // of keys
  bool diagonal;          // a block with itself: its pairs appear both ways
  const int64_t* selves;  // of the left rows, or null

  // Calls visit(i, j, place): left row i is the key itself that is right row j.
  template <typename Visit>
  void for_each_self(int64_t row, int64_t row_count, int64_t column, int64_t column_count, const Visit& visit) const {
    for (int64_t i = 0; selves != nullptr && i < row_count; ++i) {
      const int64_t j = selves[row + i] - right.first - column;
      if (j >= 0 && j < column_count) {
        visit(i, j);
      }
    }
  }
  void set_selves(const Tile<T>& tile, int64_t row, int64_t column, T value) const {
    for_each_self(row, tile.rows, column, tile.columns, [&](int64_t i, int64_t j) { tile.row(i)[j] = value; });
  }

  // The classes of both blocks, with their runs in either.
  std::vector<std::pair<ClassRun, ClassRun>> shared_classes() const {
    std::vector<std::pair<ClassRun, ClassRun>> shared;
    for_each_shared_class(
        left.labels(), left.rows(), right.labels(), right.rows(),
        [&](const ClassRun& i, const ClassRun& j) { shared.emplace_back(i, j); });
    return shared;
  }
};

// A pair of tiles, and which copies of its rows' and columns' sums it adds to.
struct SharedTilePair {
  int64_t row;
  int64_t column;
  int64_t row_replica = 0;
  int64_t column_replica = 0;
};

// The order of the tiles of two blocks. The side of fewer tiles has copies of its sums; see CrossSchedule.
class BlockSchedule {
 public:
  template <typename T>
  explicit BlockSchedule(const BlockPair<T>& pair)
      : diagonal_(pair.diagonal),
        flipped_(pair.left.tiling.count() < pair.right.tiling.count()),
        symmetric_(pair.left.tiling.count()),
        cross_(
            std::max(pair.left.tiling.count(), pair.right.tiling.count()),
            std::min(pair.left.tiling.count(), pair.right.tiling.count()),
            std::min<int64_t>(CrossSchedule::kWidth, std::max(pair.left.tiling.count(), pair.right.tiling.count()))) {}

  int64_t row_replicas() const {
    return diagonal_ || !flipped_ ? 1 : cross_.replicas();
  }
  int64_t column_replicas() const {
    return diagonal_ || flipped_ ? 1 : cross_.replicas();
  }

  template <typename Visit>
  void for_each(const Visit& visit) const {
    if (diagonal_) {
      for_each_pair(symmetric_, [&](const TilePair& pair, int thread) {
        visit(SharedTilePair{pair.row, pair.column}, thread);
      });
    } else {
      for_each_pair(cross_, [&](const TilePair& pair, int thread) {
        visit(
            flipped_ ? SharedTilePair{pair.column, pair.row, pair.replica, 0}
                     : SharedTilePair{pair.row, pair.column, 0, pair.replica},
            thread);
      });
    }
  }

 private:
  bool diagonal_;
  bool flipped_;
  SymmetricSchedule symmetric_;
  CrossSchedule cross_;
};

// Visits all pairs block by block: begin(left) before the first of a block of anchors, visit(pair), end(left) behind its
// last.
template <typename T, typename Begin, typename Visit, typename End>
void for_each_block_pair(
    const AnchorKeyInputs& inputs, const Sides& sides, const Begin& begin, const Visit& visit, const End& end) {
  const auto& keys = inputs.key_rows();
  const auto rows = blocks_of<T>(sides.anchors, inputs.anchors.size(1));
  const auto columns = blocks_of<T>(sides.keys(), inputs.anchors.size(1));
  for (int64_t row = 0; row < rows.count(); ++row) {
    const Block<T> left(sides.anchors, rows, row, inputs.anchors, inputs.normalize);
    const int64_t* selves = sides.selves.empty() ? nullptr : sides.selves.data() + left.first;
    begin(left);
    if (sides.own_keys()) {
      visit(BlockPair<T>{left, left, true, selves});
    }
    for (int64_t column = sides.own_keys() ? row + 1 : 0; column < columns.count(); ++column) {
      const Block<T> right(sides.keys(), columns, column, keys, inputs.normalize);
      visit(BlockPair<T>{left, right, false, selves});
    }
    end(left);
  }
}

}  // namespace mcfa_fast
