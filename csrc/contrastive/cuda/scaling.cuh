// Temperatures, and the arithmetic of one pair, which all forms of the pair kernels share. Exponents are in powers
// of two: s2 = log2(e) / temperature times the dot product.
#pragma once

#include "../../common/device.cuh"

namespace mcfa_fast {

// For unit vectors |s| <= 1 / temperature, so that 1 / temperature can stand in for the maximum of every log-sum-exp
// (`bounded`) as long as e^(-2 / temperature) stays far from underflow.
template <typename A>
struct DeviceScaling {
  A scale;
  A scale2;  // scale * log2(e)
  bool bounded;

  // NaN for a temperature that is not positive and finite, which on the GPU only the results can tell.
  static __device__ __forceinline__ DeviceScaling read(const double* temperature, bool normalized) {
    const double value = *temperature;
    const bool valid = value > 0 && value < static_cast<double>(INFINITY);
    const double scale = valid ? 1 / value : static_cast<double>(NAN);
    constexpr double kLargestExponent = sizeof(A) == 4 ? 60 : 600;
    return {
        static_cast<A>(scale), static_cast<A>(scale * 1.4426950408889634), normalized && 2 * scale <= kLargestExponent};
  }
};

constexpr double kLn2 = 0.6931471805599453;

// A running log-sum-exp: log2 sum_j 2^(s2_j) = largest + log2(sum).
template <typename A>
struct LogSum {
  A largest;
  A sum;

  __device__ __forceinline__ void merge(A other_largest, A other_sum) {
    const A both = other_largest > largest ? other_largest : largest;
    if (both > -INFINITY) {
      sum = sum * exp2_fast(largest - both) + other_sum * exp2_fast(other_largest - both);
      largest = both;
    } else {
      sum += other_sum;  // 0, or NaN
    }
  }
  // In natural logarithms; 0 for an empty sum.
  __device__ __forceinline__ A value() const {
    return sum == 0 ? A(0) : static_cast<A>(static_cast<A>(kLn2) * (largest + log2(sum)));
  }
};

// Adds kColumns terms to a row's log-sum-exp; value(k) is the raw dot product of term k, or -infinity to leave it out.
template <int kColumns, typename A, typename Value>
__device__ __forceinline__ void add_terms(LogSum<A>& total, const DeviceScaling<A>& scaling, const Value& value) {
  A sum = 0;
  if (scaling.bounded) {
#pragma unroll
    for (int k = 0; k < kColumns; ++k) {
      sum += exp2_fast(value(k) * scaling.scale2 - scaling.scale2);
    }
    total.sum += sum;
    return;
  }
  A largest = -INFINITY;
#pragma unroll
  for (int k = 0; k < kColumns; ++k) {
    const A s2 = value(k) * scaling.scale2;
    largest = s2 > largest ? s2 : largest;
    sum = s2 == s2 ? sum : s2;
  }
  if (largest == -INFINITY) {
    total.sum += sum;  // 0, or NaN
    return;
  }
  largest = largest > total.largest ? largest : total.largest;
#pragma unroll
  for (int k = 0; k < kColumns; ++k) {
    sum += exp2_fast(value(k) * scaling.scale2 - largest);
  }
  total.sum = total.sum * exp2_fast(total.largest - largest) + sum;
  total.largest = largest;
}

template <typename A>
__device__ __forceinline__ LogSum<A> empty_sum(const DeviceScaling<A>& scaling) {
  return {scaling.bounded ? scaling.scale2 : -INFINITY, 0};
}

// Pairs of rows and columns, not the same, that are no pairs because the row is the column: the column of every row, or
// the row of every column, or neither (null); -1 for none.
struct SelfPairs {
  const int64_t* of_rows;
  const int64_t* of_columns;

  __device__ __forceinline__ bool any() const {
    return of_rows != nullptr || of_columns != nullptr;
  }
};

// What the pair kernels of the forward pass are given. Rows of rows and columns are `width` apart.
template <typename T>
struct ForwardPairs {
  const T* rows;
  const T* columns;
  int64_t row_count;
  int64_t column_count;
  const int64_t* kept_rows;     // null: all
  const int64_t* kept_columns;  // null: all
  int64_t width;
  const double* temperature;
  bool normalized;
  bool same;             // rows and columns are the same, and a row is no column of itself
  SelfPairs selves;
  const int64_t* begin;  // each row's positives among the columns, null if not wanted
  const int64_t* end;
  bool by_symmetry;        // where the scaling is bounded, mma_symmetric_kernel computes the sums
  int64_t splits;          // of the sums; a kernel that takes fewer leaves the rest empty
  Accumulate<T>* largest;  // [splits, rows]
  Accumulate<T>* sum;
  Accumulate<T>* positive_largest;  // [gridDim.y, rows]
  Accumulate<T>* positive_sum;
};

// What a row or column brings to the weights of its pairs: gradient times e^(s - log-sum-exp), less, for its positives,
// the same with their own log-sum-exp, or a number. `weight` holds the gradient and `shift2` the log-sum-exp; where the
// scaling is bounded, `weight` is already 2^(scale2 - shift2) times the gradient. The two parts nearly cancel in a model
// that has learned, so they are put together before anything is rounded to 16 bits.
template <typename A>
struct PairTerms {
  const A* weight;
  const A* shift2;
  const A* positive_weight;
  const A* positive_shift2;  // null: positive_weight itself is the number
};

template <typename T>
struct BackwardPairs {
  const T* rows;
  const T* columns;
  int64_t row_count;
  int64_t column_count;
  const int64_t* kept_rows;
  const int64_t* kept_columns;
  int64_t width;
  const double* temperature;
  bool normalized;
  bool same;
  SelfPairs selves;
  const int64_t* begin;
  const int64_t* end;
  PairTerms<Accumulate<T>> row_terms;
  PairTerms<Accumulate<T>> column_terms;
  bool accumulate;        // add to what is there
  Accumulate<T>* grad;    // [splits, rows, width]: sum over columns of weight times column
};

// Whether a row is that column itself; either may lie beyond the last.
template <typename Pairs>
__device__ __forceinline__ bool is_self(const Pairs& pairs, int64_t row, int64_t column) {
  if (pairs.same) {
    return column == row;
  }
  if (pairs.selves.of_rows != nullptr) {
    return row < pairs.row_count && pairs.selves.of_rows[row] == column;
  }
  return pairs.selves.of_columns != nullptr && column < pairs.column_count && pairs.selves.of_columns[column] == row;
}

// The weight of one pair from its raw dot product s.
template <typename A>
__device__ __forceinline__ A pair_weight(
    A s, const DeviceScaling<A>& scaling, A row_weight, A row_shift2, A column_weight, A column_shift2) {
  if (scaling.bounded) {
    return exp2_fast(s * scaling.scale2 - scaling.scale2) * (row_weight + column_weight);
  }
  const A s2 = s * scaling.scale2;
  // An absent term has weight 0 and an infinite shift; 0 times its exponential stays 0.
  return row_weight * exp2_fast(s2 - row_shift2) + column_weight * exp2_fast(s2 - column_shift2);
}

// What a pair of positives loses of its weight.
template <typename A>
__device__ __forceinline__ A positive_pair_weight(
    A s, const DeviceScaling<A>& scaling, const PairTerms<A>& rows, int64_t row, const PairTerms<A>& columns,
    int64_t column) {
  if (rows.positive_shift2 == nullptr) {
    return rows.positive_weight[row] + columns.positive_weight[column];
  }
  return pair_weight(
      s, scaling, rows.positive_weight[row], rows.positive_shift2[row], columns.positive_weight[column],
      columns.positive_shift2[column]);
}

__device__ __forceinline__ int64_t kept_count(const int64_t* kept, int64_t all) {
  return kept == nullptr ? all : *kept;
}

// The tiles [first, last) of `width` columns each that split blockIdx.y of gridDim.y takes.
struct TileRange {
  int64_t first;
  int64_t last;

  static __device__ __forceinline__ TileRange of_split(int64_t columns, int64_t kept, int width) {
    const int64_t tiles = (columns + width - 1) / width;
    const int64_t used = (kept + width - 1) / width;
    const int64_t first = tiles * blockIdx.y / gridDim.y;
    const int64_t last = tiles * (blockIdx.y + 1) / gridDim.y;
    return {first, last < used ? last : used};
  }
  // Those with columns of [begin, end).
  __device__ __forceinline__ TileRange within(int64_t begin, int64_t end, int width) const {
    const int64_t begin_tile = begin / width;
    const int64_t end_tile = (end + width - 1) / width;
    return {first > begin_tile ? first : begin_tile, last < end_tile ? last : end_tile};
  }
};

}  // namespace mcfa_fast
