#include "rows.h"

#include <limits>

#include "../../common/simd.h"

namespace mcfa_fast {

// Each loop is written once below and instantiated for float and double in cloned functions, since
// function multiversioning does not reach into templates.
namespace loops {

template <typename T>
MCFA_INLINE T exp_row(T* s, int64_t n, T scale, T shift) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; ++j) {
    const T e = simd_exp(scale * s[j] - shift);
    s[j] = e;
    sum += e;
  }
  return sum;
}

template <typename T>
MCFA_INLINE void weight_row(T* s, int64_t n, T scale, T shift, T row_factor, const T* column_factors) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) {
    s[j] = simd_exp(scale * s[j] - shift) * (row_factor + column_factors[j]);
  }
}

template <typename T>
MCFA_INLINE T dot_row(const T* a, const T* b, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; ++j) {
    sum += a[j] * b[j];
  }
  return sum;
}

template <typename T>
MCFA_INLINE void add_scaled_row(T* total, const T* s, int64_t n, T factor) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) {
    total[j] += factor * s[j];
  }
}

template <typename T>
MCFA_INLINE T sum_row(const T* s, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; ++j) {
    sum += s[j];
  }
  return sum;
}

template <typename T>
MCFA_INLINE void add_row(T* total, const T* s, int64_t n) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) {
    total[j] += s[j];
  }
}

template <typename T>
MCFA_INLINE T max_row(const T* s, int64_t n) {
  T largest = -std::numeric_limits<T>::infinity();
#pragma omp simd reduction(max : largest)
  for (int64_t j = 0; j < n; ++j) {
    largest = s[j] > largest ? s[j] : largest;
  }
  return largest;
}

template <typename T>
MCFA_INLINE void raise_row(T* largest, const T* s, int64_t n, T scale) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) {
    const T value = scale * s[j];
    largest[j] = value > largest[j] ? value : largest[j];
  }
}

template <typename T>
MCFA_INLINE T exp_sum_row(const T* s, int64_t n, T scale, T shift) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; ++j) {
    sum += simd_exp(scale * s[j] - shift);
  }
  return sum;
}

template <typename T>
MCFA_INLINE void add_exp_row(T* total, const T* s, int64_t n, T scale, const T* shifts) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) {
    total[j] += simd_exp(scale * s[j] - shifts[j]);
  }
}

template <typename T>
MCFA_INLINE void weight_shifted_row(
    T* s, int64_t n, T scale, T row_factor, T row_shift, const T* column_factors, const T* column_shifts) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) {
    const T value = scale * s[j];
    s[j] = row_factor * simd_exp(value - row_shift) + column_factors[j] * simd_exp(value - column_shifts[j]);
  }
}

}  // namespace loops

#define MCFA_INSTANTIATE_ROWS(T)                                                                      \
  MCFA_SIMD_CLONES T exp_row(T* s, int64_t n, T scale, T shift) {                                     \
    return loops::exp_row(s, n, scale, shift);                                                        \
  }                                                                                                   \
  MCFA_SIMD_CLONES void weight_row(                                                                   \
      T* s, int64_t n, T scale, T shift, T row_factor, const T* column_factors) {                     \
    loops::weight_row(s, n, scale, shift, row_factor, column_factors);                                \
  }                                                                                                   \
  MCFA_SIMD_CLONES T dot_row(const T* a, const T* b, int64_t n) {                                     \
    return loops::dot_row(a, b, n);                                                                   \
  }                                                                                                   \
  MCFA_SIMD_CLONES void add_scaled_row(T* total, const T* s, int64_t n, T factor) {                   \
    loops::add_scaled_row(total, s, n, factor);                                                       \
  }                                                                                                   \
  MCFA_SIMD_CLONES T sum_row(const T* s, int64_t n) {                                                 \
    return loops::sum_row(s, n);                                                                      \
  }                                                                                                   \
  MCFA_SIMD_CLONES void add_row(T* total, const T* s, int64_t n) {                                    \
    loops::add_row(total, s, n);                                                                      \
  }                                                                                                   \
  MCFA_SIMD_CLONES T max_row(const T* s, int64_t n) {                                                 \
    return loops::max_row(s, n);                                                                      \
  }                                                                                                   \
  MCFA_SIMD_CLONES void raise_row(T* largest, const T* s, int64_t n, T scale) {                       \
    loops::raise_row(largest, s, n, scale);                                                           \
  }                                                                                                   \
  MCFA_SIMD_CLONES T exp_sum_row(const T* s, int64_t n, T scale, T shift) {                           \
    return loops::exp_sum_row(s, n, scale, shift);                                                    \
  }                                                                                                   \
  MCFA_SIMD_CLONES void add_exp_row(T* total, const T* s, int64_t n, T scale, const T* shifts) {      \
    loops::add_exp_row(total, s, n, scale, shifts);                                                   \
  }                                                                                                   \
  MCFA_SIMD_CLONES void weight_shifted_row(                                                           \
      T* s, int64_t n, T scale, T row_factor, T row_shift, const T* column_factors,                   \
      const T* column_shifts) {                                                                       \
    loops::weight_shifted_row(s, n, scale, row_factor, row_shift, column_factors, column_shifts);     \
  }

MCFA_INSTANTIATE_ROWS(float)
MCFA_INSTANTIATE_ROWS(double)

}  // namespace mcfa_fast
