// What the contrastive losses do once per row or class, in O((N + C) D): normalised latents in the order of the
// sorted labels, class sums, each instance's product with its own class.
#pragma once

#include "scaling.cuh"

namespace mcfa_fast {

constexpr int kRowThreads = 256;     // threads of the kernels below with a warp per row
constexpr int kRowsPerChunk = 128;   // rows that one block adds up for the class sums

// Row r of u [rows, padded] is row order[r] (or r) of x [rows, width] divided by max(its norm, 1e-12) and padded with
// zeros; rows from *kept on are zero. inverse_norms [rows] is 1 without normalisation. A warp per row.
template <typename T>
__global__ void __launch_bounds__(kRowThreads) latents_kernel(
    const T* __restrict__ x, const int64_t* order, const int64_t* kept, int64_t rows, int64_t width, int64_t padded,
    bool normalize, T* __restrict__ u, Accumulate<T>* inverse_norms) {
  using A = Accumulate<T>;
  const int64_t row = global_warp();
  const int lane = threadIdx.x % 32;
  if (row >= rows) {
    return;
  }
  const bool used = kept == nullptr || row < *kept;
  const T* from = x + (order == nullptr ? row : order[row]) * width;
  A inverse = used ? 1 : 0;
  if (normalize && used) {
    A squares = 0;
    for (int64_t d = lane; d < width; d += 32) {
      const A value = widen(from[d]);
      squares += value * value;
    }
    const A norm = sqrt(warp_sum(squares));
    inverse = 1 / (norm > A(1e-12) ? norm : A(1e-12));
  }
  for (int64_t d = lane; d < padded; d += 32) {
    u[row * padded + d] = narrow<T>(used && d < width ? widen(from[d]) * inverse : A(0));
  }
  if (lane == 0) {
    inverse_norms[row] = inverse;
  }
}

// Sums of rows of u over classes, in two steps with a fixed order: a block adds up the rows of its chunk, class by
// class, into sums[first row of the class], or into heads[chunk] for the class that an earlier chunk began.
// sums and heads have `width` columns.
template <typename T>
__global__ void class_sums_kernel(
    const T* __restrict__ u, const int64_t* begin, const int64_t* kept, int64_t width, Accumulate<T>* sums,
    Accumulate<T>* heads) {
  using A = Accumulate<T>;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kRowsPerChunk;
  const int64_t last = first + kRowsPerChunk < *kept ? first + kRowsPerChunk : *kept;
  if (first >= last) {
    return;
  }
  for (int64_t d = threadIdx.x; d < width; d += blockDim.x) {
    int64_t of = begin[first];
    A sum = 0;
    for (int64_t row = first; row <= last; ++row) {
      const int64_t now = row < last ? begin[row] : -1;
      if (now != of) {
        A* to = of < first ? heads + static_cast<int64_t>(blockIdx.x) * width : sums + of * width;
        to[d] = sum;
        sum = 0;
        of = now;
      }
      if (row < last) {
        sum += widen(u[row * width + d]);
      }
    }
  }
}

// The second step: a class that goes on beyond the chunk where it began gets the heads of the following chunks.
template <typename A>
__global__ void class_heads_kernel(
    const A* __restrict__ heads, const int64_t* begin, const int64_t* end, const int64_t* kept, int64_t width, A* sums) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kRowsPerChunk;
  const int64_t next = first + kRowsPerChunk;
  if (next >= *kept || begin[next - 1] < first || end[next - 1] <= next) {
    return;
  }
  const int64_t last_chunk = (end[next - 1] - 1) / kRowsPerChunk;
  for (int64_t d = threadIdx.x; d < width; d += blockDim.x) {
    A sum = sums[begin[next - 1] * width + d];
    for (int64_t chunk = blockIdx.x + 1; chunk <= last_chunk; ++chunk) {
      sum += heads[chunk * width + d];
    }
    sums[begin[next - 1] * width + d] = sum;
  }
}

// The dot product of two rows, by a warp.
template <typename T, typename S>
__device__ __forceinline__ Accumulate<T> dot_rows(const T* a, const S* b, int64_t width) {
  Accumulate<T> sum = 0;
  for (int64_t d = threadIdx.x % 32; d < width; d += 32) {
    sum += widen(a[d]) * widen(b[d]);
  }
  return warp_sum(sum);
}

// products[row] = row of visual · the row of its class of semantic. A warp per row.
template <typename T>
__global__ void __launch_bounds__(kRowThreads) own_products_kernel(
    const T* __restrict__ visual, const T* __restrict__ semantic, const int64_t* keys, const int64_t* kept,
    int64_t width, Accumulate<T>* products) {
  const int64_t row = global_warp();
  if (row >= *kept) {
    return;
  }
  const Accumulate<T> product = dot_rows(visual + row * width, semantic + keys[row] * width, width);
  if (threadIdx.x % 32 == 0) {
    products[row] = product;
  }
}

// For each class the mean of its products, or (in_form) their log2-sum-exp2 times `scale2`. A block per class.
template <typename A>
__global__ void __launch_bounds__(kRowThreads) class_products_kernel(
    const A* __restrict__ products, const int64_t* begin, const int64_t* end, bool in_form, const double* temperature,
    A* result) {
  A* scratch = reinterpret_cast<A*>(shared_memory());
  constexpr int kWarps = kRowThreads / 32;
  const int64_t first = begin[blockIdx.x];
  const int64_t last = end[blockIdx.x];
  A largest = 0;
  const A scale2 = DeviceScaling<A>::read(temperature, true).scale2;
  if (in_form) {
    largest = -INFINITY;
    for (int64_t row = first + threadIdx.x; row < last; row += kRowThreads) {
      const A value = scale2 * products[row];
      largest = value > largest ? value : largest;
    }
    largest = block_max(largest, scratch, kWarps);
  }
  A sum = 0;
  for (int64_t row = first + threadIdx.x; row < last; row += kRowThreads) {
    sum += in_form ? exp2_fast(scale2 * products[row] - largest) : products[row];
  }
  sum = block_sum(sum, scratch, kWarps);
  if (threadIdx.x == 0) {
    const A count = static_cast<A>(last - first);
    result[blockIdx.x] = last == first ? A(0) : in_form ? largest + log2(sum) : sum / count;
  }
}

}  // namespace mcfa_fast
