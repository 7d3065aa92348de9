// Labels in sorted order on the GPU: every class is one contiguous run of rows, so that sums over a class need
// neither masks nor atomics and come out the same every time.
#pragma once

#include "device.cuh"

namespace mcfa_fast {

constexpr int64_t kLastKey = INT64_MAX;

// A label as a sort key: itself, but `ignore_index` changes places with the largest integer, and so comes last.
__host__ __device__ inline int64_t sort_key(int64_t label, int64_t ignore_index) {
  return label == ignore_index ? kLastKey : label == kLastKey ? ignore_index : label;
}

// The first position in sorted `keys` [size] whose key is at least `key`, or above it.
__device__ __forceinline__ int64_t first_position(const int64_t* keys, int64_t size, int64_t key, bool above) {
  int64_t low = 0;
  int64_t high = size;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (keys[middle] < key || (above && keys[middle] == key)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// keys [size] of labels [size]. `classes` < 0: any label will do. `ignoring`: there is an ignore_index.
static __global__ void label_keys_kernel(
    const int64_t* labels, int64_t size, bool ignoring, int64_t ignore_index, int64_t classes, int64_t* keys) {
  const int64_t index = global_thread();
  if (index >= size) {
    return;
  }
  const int64_t label = labels[index];
  const bool ignored = ignoring && label == ignore_index;
  MCFA_DEVICE_ASSERT(
      classes < 0 || ignored || (label >= 0 && label < classes),
      "expected every entry of `labels` to be a class in [0, C)");
  keys[index] = ignoring ? sort_key(label, ignore_index) : label;
}

// The run [begin, end) of rows with the row's label, for every row of sorted `keys`; empty for ignored rows.
// counts: the rows that are not ignored, and those of them that share their label with another.
static __global__ void class_runs_kernel(
    const int64_t* keys, int64_t size, bool ignoring, int64_t* begin, int64_t* end, int64_t* counts) {
  const int64_t row = global_thread();
  int64_t kept = 0;
  int64_t paired = 0;
  if (row < size) {
    const bool ignored = ignoring && keys[row] == kLastKey;
    begin[row] = ignored ? row : first_position(keys, size, keys[row], false);
    end[row] = ignored ? row : first_position(keys, size, keys[row], true);
    kept = ignored ? 0 : 1;
    paired = end[row] - begin[row] > 1 ? 1 : 0;
  }
  kept = warp_sum(kept);
  paired = warp_sum(paired);
  if (threadIdx.x % 32 == 0) {
    atomic_add(counts, kept);
    atomic_add(counts + 1, paired);
  }
}

// The run of rows of every class 0..classes-1, and in *present the number of classes with a row.
static __global__ void class_ranges_kernel(
    const int64_t* keys, int64_t size, bool ignoring, int64_t ignore_index, int64_t classes, int64_t* begin,
    int64_t* end, int64_t* present) {
  const int64_t label = global_thread();
  int64_t some = 0;
  if (label < classes) {
    const bool ignored = ignoring && label == ignore_index;
    begin[label] = first_position(keys, size, label, false);
    end[label] = ignored ? begin[label] : first_position(keys, size, label, true);
    some = end[label] > begin[label] ? 1 : 0;
  }
  some = warp_sum(some);
  if (threadIdx.x % 32 == 0) {
    atomic_add(present, some);
  }
}

}  // namespace mcfa_fast
