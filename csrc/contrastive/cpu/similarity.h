// What the CPU losses do with one tile of similarities: add it to running log-sum-exps (forward) and
// turn it into gradient weights (backward).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "rows.h"

namespace mcfa_fast {

// Similarities are scale * dot product. For unit vectors they lie in [-scale, scale], so `scale` itself
// can stand in for the maximum of every log-sum-exp as long as e^(-2 scale) stays far from underflow.
template <typename T>
struct Scaling {
  T scale;
  bool bounded;

  static Scaling of(double temperature, bool normalized) {
    constexpr double kLargestExponent = std::is_same_v<T, float> ? 60 : 600;
    return {static_cast<T>(1 / temperature), normalized && 2 / temperature <= kLargestExponent};
  }
};

// A block of raw dot products.
template <typename T>
struct Tile {
  T* data;
  int64_t stride;
  int64_t rows;
  int64_t columns;

  T* row(int64_t index) const {
    return data + index * stride;
  }
  Tile block(int64_t row_begin, int64_t row_end, int64_t column_begin, int64_t column_end) const {
    return {row(row_begin) + column_begin, stride, row_end - row_begin, column_end - column_begin};
  }
};

// Running log-sum-exps of many rows: log sum_j e^(s_j) = largest + log(sum).
template <typename T>
class LogSumExps {
 public:
  struct View {
    T* largest;
    double* sum;

    View operator+(int64_t offset) const {
      return {largest + offset, sum + offset};
    }
  };

  LogSumExps(int64_t size, const Scaling<T>& scaling)
      : largest_(size, scaling.bounded ? scaling.scale : -std::numeric_limits<T>::infinity()), sum_(size, 0.0) {}

  View view(int64_t offset) {
    return {largest_.data() + offset, sum_.data() + offset};
  }

  bool is_empty(int64_t index) const {
    return sum_[index] == 0;
  }
  // log-sum-exp of row `index`; 0 for an empty sum.
  T value(int64_t index) const {
    return sum_[index] == 0 ? T(0) : static_cast<T>(largest_[index] + std::log(sum_[index]));
  }

  // Adds the terms of row `from` of other sums to row `to`.
  void merge(int64_t to, const LogSumExps& other, int64_t from) {
    const T largest = std::max(largest_[to], other.largest_[from]);
    if (other.sum_[from] != 0) {
      sum_[to] = sum_[to] * std::exp(double(largest_[to]) - largest) +
          other.sum_[from] * std::exp(double(other.largest_[from]) - largest);
      largest_[to] = largest;
    }
  }

 private:
  std::vector<T> largest_;
  std::vector<double> sum_;
};

// Adds a tile of exponentials relative to `scale` to the sums of its rows and, unless null, of its columns.
template <typename T>
void add_exponentials(
    const Tile<T>& tile, typename LogSumExps<T>::View rows, const typename LogSumExps<T>::View* columns,
    std::vector<T>& buffer) {
  buffer.assign(tile.columns, T(0));
  for (int64_t i = 0; i < tile.rows; ++i) {
    rows.sum[i] += sum_row(tile.row(i), tile.columns);
    if (columns != nullptr) {
      add_row(buffer.data(), tile.row(i), tile.columns);
    }
  }
  if (columns != nullptr) {
    for (int64_t j = 0; j < tile.columns; ++j) {
      columns->sum[j] += buffer[j];
    }
  }
}

// Adds a tile of dot products to the log-sum-exps of its rows and columns, moving their maxima along.
template <typename T>
void add_unbounded(
    const Tile<T>& tile, T scale, typename LogSumExps<T>::View rows, const typename LogSumExps<T>::View* columns,
    std::vector<T>& buffer) {
  const auto rescaled = [](double sum, T from, T to) { return sum == 0 ? 0.0 : sum * std::exp(double(from) - to); };
  constexpr T kNothing = -std::numeric_limits<T>::infinity();
  for (int64_t i = 0; i < tile.rows; ++i) {
    const T largest = std::max(rows.largest[i], scale * max_row(tile.row(i), tile.columns));
    if (largest == kNothing) {  // nothing but masked entries, unless they are NaN
      rows.sum[i] = std::isnan(sum_row(tile.row(i), tile.columns)) ? std::numeric_limits<double>::quiet_NaN() : 0.0;
      continue;
    }
    rows.sum[i] =
        rescaled(rows.sum[i], rows.largest[i], largest) + exp_sum_row(tile.row(i), tile.columns, scale, largest);
    rows.largest[i] = largest;
  }
  if (columns == nullptr) {
    return;
  }
  buffer.assign(2 * tile.columns, T(0));
  T* largest = buffer.data() + tile.columns;
  std::copy_n(columns->largest, tile.columns, largest);
  for (int64_t i = 0; i < tile.rows; ++i) {
    raise_row(largest, tile.row(i), tile.columns, scale);
  }
  for (int64_t i = 0; i < tile.rows; ++i) {
    add_exp_row(buffer.data(), tile.row(i), tile.columns, scale, largest);
  }
  for (int64_t j = 0; j < tile.columns; ++j) {
    columns->sum[j] = rescaled(columns->sum[j], columns->largest[j], largest[j]) + buffer[j];
    columns->largest[j] = largest[j];
  }
}

// Adds a tile of dot products to the log-sum-exps of its rows and columns. Bounded similarities are
// left as exponentials, ready for add_block.
template <typename T>
void add_tile(
    const Tile<T>& tile, const Scaling<T>& scaling, typename LogSumExps<T>::View rows,
    const typename LogSumExps<T>::View* columns, std::vector<T>& buffer) {
  if (!scaling.bounded) {
    add_unbounded(tile, scaling.scale, rows, columns, buffer);
    return;
  }
  buffer.assign(tile.columns, T(0));
  for (int64_t i = 0; i < tile.rows; ++i) {
    rows.sum[i] += exp_row(tile.row(i), tile.columns, scaling.scale, scaling.scale);
    add_row(buffer.data(), tile.row(i), tile.columns);
  }
  for (int64_t j = 0; columns != nullptr && j < tile.columns; ++j) {
    columns->sum[j] += buffer[j];
  }
}

// The same for a block of a tile that add_tile has been through.
template <typename T>
void add_block(
    const Tile<T>& block, const Scaling<T>& scaling, typename LogSumExps<T>::View rows,
    const typename LogSumExps<T>::View* columns, std::vector<T>& buffer) {
  if (scaling.bounded) {
    add_exponentials(block, rows, columns, buffer);
  } else {
    add_unbounded(block, scaling.scale, rows, columns, buffer);
  }
}

// Upstream gradients g of log-sum-exps L, stored so that g e^(s - L) is cheap: as the factor
// g e^(scale - L) of e^(s - scale) for bounded similarities, as the pair (g, L) otherwise.
template <typename T>
class SoftmaxWeights {
 public:
  SoftmaxWeights(int64_t size, const Scaling<T>& scaling)
      : scaling_(scaling), factor_(size, T(0)), shift_(size, std::numeric_limits<T>::max()) {}

  // A row that is never set has weight 0.
  void set(int64_t index, T grad, T log_sum_exp) {
    factor_[index] = scaling_.bounded ? grad * std::exp(scaling_.scale - log_sum_exp) : grad;
    shift_[index] = grad == 0 ? std::numeric_limits<T>::max() : log_sum_exp;
  }

  // Turns a tile of dot products s_ij, whose rows begin at `row` of `rows` and whose columns at `column` of
  // `columns`, into the weights g_i e^(s_ij - L_i) + g_j e^(s_ij - L_j), in place.
  static void apply(
      const Tile<T>& tile, const SoftmaxWeights& rows, int64_t row, const SoftmaxWeights& columns, int64_t column) {
    const auto& scaling = rows.scaling_;
    const T* factors = columns.factor_.data() + column;
    const T* shifts = columns.shift_.data() + column;
    for (int64_t i = 0; i < tile.rows; ++i) {
      const T factor = rows.factor_[row + i];
      if (scaling.bounded) {
        weight_row(tile.row(i), tile.columns, scaling.scale, scaling.scale, factor, factors);
      } else {
        weight_shifted_row(tile.row(i), tile.columns, scaling.scale, factor, rows.shift_[row + i], factors, shifts);
      }
    }
  }

 private:
  Scaling<T> scaling_;
  std::vector<T> factor_;
  std::vector<T> shift_;
};

}  // namespace mcfa_fast
