// Tiles of dot products on the CPU: where they are kept and how they meet the classes of a batch.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "../../common/matmul.h"
#include "batch.h"
#include "similarity.h"
#include "tiles.h"

namespace mcfa_fast {

// One tile of dot products per thread, and what goes with it.
template <typename T>
struct Workspace {
  // rows · columns^T, kept until the next tile.
  Tile<T> multiply(const at::Tensor& rows, const at::Tensor& columns) {
    matrix = product(rows, columns.t());
    return {matrix.template mutable_data_ptr<T>(), columns.size(0), rows.size(0), columns.size(0)};
  }

  at::Tensor matrix;
  std::vector<T> sums;
  std::vector<T> positives;
};

template <typename T>
std::vector<Workspace<T>> workspaces() {
  return std::vector<Workspace<T>>(at::get_num_threads());
}

inline at::Tensor rows_of(const at::Tensor& values, const Tiling& tiling, int64_t tile) {
  return tiling.count() == 1 ? values : values.narrow(0, tiling.begin(tile), tiling.size(tile));
}

template <typename T>
void set_diagonal(const Tile<T>& tile, T value) {
  for (int64_t i = 0; i < tile.rows; ++i) {
    tile.row(i)[i] = value;
  }
}

// Calls visit(rows, columns) for every class with rows of the batch in [row_begin, row_end) and in
// [column_begin, column_end), with the parts of the class in either, as runs relative to their beginnings.
template <typename Visit>
void for_each_shared_class(
    const SortedLabels& labels, int64_t row_begin, int64_t row_end, int64_t column_begin, int64_t column_end,
    const Visit& visit) {
  const int64_t first = std::max(labels.run_of[row_begin], labels.run_of[column_begin]);
  const int64_t last = std::min(labels.run_of[row_end - 1], labels.run_of[column_end - 1]);
  for (int64_t index = first; index <= last; ++index) {
    const ClassRun& run = labels.runs[index];
    const auto within = [&run](int64_t begin, int64_t end) {
      return ClassRun{run.label, std::max(run.begin, begin) - begin, std::min(run.end, end) - begin};
    };
    visit(within(row_begin, row_end), within(column_begin, column_end));
  }
}

}  // namespace mcfa_fast
