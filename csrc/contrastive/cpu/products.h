// Tiles of dot products on the CPU: where they are kept, and what becomes of those of labelled rows.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>
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

// Calls visit(rows, columns) for every class that has rows among `rows` and among `columns`, both of them sorted labels,
// with its run in either.
template <typename Visit>
void for_each_shared_class(
    const int64_t* rows, int64_t row_count, const int64_t* columns, int64_t column_count, const Visit& visit) {
  const int64_t* row = rows;
  const int64_t* column = columns;
  const int64_t* rows_end = rows + row_count;
  const int64_t* columns_end = columns + column_count;
  while (row != rows_end && column != columns_end) {
    if (*row < *column) {
      row = std::lower_bound(row, rows_end, *column);
    } else if (*column < *row) {
      column = std::lower_bound(column, columns_end, *row);
    } else {
      const int64_t* next_row = std::upper_bound(row, rows_end, *row);
      const int64_t* next_column = std::upper_bound(column, columns_end, *column);
      visit(ClassRun{*row, row - rows, next_row - rows}, ClassRun{*row, column - columns, next_column - columns});
      row = next_row;
      column = next_column;
    }
  }
}

// A side of a tile in a sum over pairs: labels of its rows, sorted, and their log-sum-exps over all pairs and, in the "in"
// form, over those of a class.
template <typename T>
struct TileSums {
  const int64_t* labels;
  typename LogSumExps<T>::View all;
  std::optional<typename LogSumExps<T>::View> positives;
};

// Adds a tile of dot products to the log-sum-exps of its rows and, where it serves them, of its columns.
template <typename T>
void add_labelled_tile(
    const Tile<T>& tile, const Scaling<T>& scaling, const TileSums<T>& rows, const TileSums<T>& columns,
    bool serves_columns, std::vector<T>& buffer) {
  add_tile(tile, scaling, rows.all, serves_columns ? &columns.all : nullptr, buffer);
  if (!rows.positives) {
    return;
  }
  for_each_shared_class(
      rows.labels, tile.rows, columns.labels, tile.columns, [&](const ClassRun& i, const ClassRun& j) {
        const auto of_columns = *columns.positives + j.begin;
        add_block(
            tile.block(i.begin, i.end, j.begin, j.end), scaling, *rows.positives + i.begin,
            serves_columns ? &of_columns : nullptr, buffer);
      });
}

// A side of a tile in a gradient: the weights of all pairs and of those of a class (or null), and the tile's first row
// among them.
template <typename T>
struct TileWeights {
  const int64_t* labels;
  const SoftmaxWeights<T>* all;
  const SoftmaxWeights<T>* positives;
  int64_t first;
};

// Turns a tile of dot products into the weights of all pairs, plus `sign` times the weights of those of a class.
template <typename T>
void weight_labelled_tile(
    const Tile<T>& tile, const TileWeights<T>& rows, const TileWeights<T>& columns, T sign, Workspace<T>& space) {
  const bool with_positives = rows.positives != nullptr;
  const auto for_each_positive_block = [&](const auto& visit) {
    if (with_positives) {
      T* weights = space.positives.data();
      for_each_shared_class(
          rows.labels, tile.rows, columns.labels, tile.columns, [&](const ClassRun& i, const ClassRun& j) {
            visit(tile.block(i.begin, i.end, j.begin, j.end), Tile<T>{weights, j.size(), i.size(), j.size()}, i, j);
            weights += i.size() * j.size();
          });
    }
  };
  space.positives.resize(with_positives ? tile.rows * tile.columns : 0);
  for_each_positive_block([&](const Tile<T>& block, const Tile<T>& weights, const ClassRun& i, const ClassRun& j) {
    for (int64_t k = 0; k < block.rows; ++k) {
      std::copy_n(block.row(k), block.columns, weights.row(k));
    }
    SoftmaxWeights<T>::apply(
        weights, *rows.positives, rows.first + i.begin, *columns.positives, columns.first + j.begin);
  });
  SoftmaxWeights<T>::apply(tile, *rows.all, rows.first, *columns.all, columns.first);
  for_each_positive_block([&](const Tile<T>& block, const Tile<T>& weights, const ClassRun&, const ClassRun&) {
    for (int64_t k = 0; k < block.rows; ++k) {
      add_scaled_row(block.row(k), weights.row(k), block.columns, sign);
    }
  });
}

}  // namespace mcfa_fast
