// Device kernels of the gathered L1 distance: one pass over memory forward and one backward.
#pragma once

#include "../common/lanes.cuh"

namespace mcfa_fast {

constexpr int kL1Threads = 256;
constexpr int64_t kL1Rows = 32;       // rows of one thread where gradients are added up by class
constexpr int kClassColumns = 32;     // columns of one block where the sums of a class come together

template <typename T>
struct L1Inputs {
  const T* instances;  // [rows, width]
  const T* table;      // [classes, width], or [rows, width] without labels
  int64_t rows;
  int64_t classes;
  int64_t width;
};

// The row of the table that an instance is compared with; labels may be null for none.
template <typename T>
__device__ __forceinline__ int64_t row_of_table(const L1Inputs<T>& args, const int64_t* labels, int64_t row) {
  if (labels == nullptr) {
    return row;
  }
  const int64_t label = labels[row];
  MCFA_DEVICE_ASSERT(label >= 0 && label < args.classes, "expected every entry of `labels` to be a class in [0, C)");
  return label;
}

// distance [rows] of each instance from its row of the table. A group of lanes, a power of two up to 32, takes a row.
template <typename T, int kVector>
__global__ void __launch_bounds__(kL1Threads) l1_forward_kernel(
    const L1Inputs<T> args, const int64_t* labels, int group, Accumulate<T>* distance) {
  using A = Accumulate<T>;
  using Part = Lanes<T, kVector>;
  const int64_t row = global_thread() / group;
  A sum = 0;
  if (row < args.rows) {
    const T* instances = args.instances + row * args.width;
    const T* table = args.table + row_of_table(args, labels, row) * args.width;
    for (int64_t f = threadIdx.x % group * kVector; f < args.width; f += group * kVector) {
      const auto instance = Part::load(instances + f);
      const auto other = Part::load(table + f);
#pragma unroll
      for (int k = 0; k < kVector; ++k) {
        const A difference = widen(instance.values[k]) - widen(other.values[k]);
        sum += difference < 0 ? -difference : difference;
      }
    }
  }
  for (int mask = group / 2; mask > 0; mask /= 2) {
    sum += shuffle_xor(sum, mask);
  }
  if (row < args.rows && threadIdx.x % group == 0) {
    distance[row] = sum;
  }
}

template <typename T>
struct L1Grads {
  const Accumulate<T>* grad_loss;
  int64_t stride;       // 0 for a reduced loss, 1 for one per row
  Accumulate<T> scale;  // 1, or 1 / rows for a mean
  T* instances;         // null where not wanted
  T* table;

  __device__ __forceinline__ Accumulate<T> of(int64_t row) const {
    return scale * grad_loss[row * stride];
  }
};

// As PyTorch has it, the slope of |x| is 0 at 0 and at NaN.
template <typename A>
__device__ __forceinline__ A slope(A grad, A difference) {
  return difference > 0 ? grad : difference < 0 ? -grad : A(0);
}

// The gradient of the instances, and without labels (null) that of the table: kVector elements to a thread.
template <typename T, int kVector>
__global__ void __launch_bounds__(kL1Threads) l1_rows_backward_kernel(
    const L1Inputs<T> args, const L1Grads<T> grads, const int64_t* labels) {
  using A = Accumulate<T>;
  using Part = Lanes<T, kVector>;
  const int64_t at = global_thread() * kVector;
  if (at >= args.rows * args.width) {
    return;
  }
  const int64_t row = at / args.width;
  const A grad = grads.of(row);
  const auto instance = Part::load(args.instances + at);
  const auto other = Part::load(args.table + at + (row_of_table(args, labels, row) - row) * args.width);
  Part result;
  if (grads.instances != nullptr) {
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      result.values[k] = narrow<T>(slope(grad, widen(instance.values[k]) - widen(other.values[k])));
    }
    result.store(grads.instances + at);
  }
  if (grads.table != nullptr) {
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      result.values[k] = narrow<T>(slope(grad, widen(other.values[k]) - widen(instance.values[k])));
    }
    result.store(grads.table + at);
  }
}

// With labels: `keys` are the sorted labels and `order` their rows. A thread takes kVector columns of a chunk of
// kL1Rows rows in that order. What they bring to the gradient of the table it leaves in sums
// [classes + chunks, width]: in [class] for the classes that begin in the chunk, in [classes + chunk] for the class that
// began earlier. The instances' gradient, if wanted, is written on the way.
template <typename T, int kVector>
__global__ void __launch_bounds__(kL1Threads) l1_sorted_backward_kernel(
    const L1Inputs<T> args, const L1Grads<T> grads, const int64_t* keys, const int64_t* order,
    Accumulate<T>* sums) {
  using A = Accumulate<T>;
  using Part = Lanes<T, kVector>;
  const int64_t parts = args.width / kVector;
  const int64_t chunk = global_thread() / parts;
  const int64_t f = global_thread() % parts * kVector;
  const int64_t first = chunk * kL1Rows;
  const int64_t last = first + kL1Rows < args.rows ? first + kL1Rows : args.rows;
  if (first >= last) {
    return;
  }
  A sum[kVector] = {};
  Part other;
  bool begun_earlier = first > 0 && keys[first - 1] == keys[first];
  for (int64_t position = first; position < last; ++position) {
    const int64_t row = order[position];
    const int64_t label = keys[position];
    if (position == first || keys[position - 1] != label) {
      other = Part::load(args.table + label * args.width + f);
    }
    const A grad = grads.of(row);
    const auto instance = Part::load(args.instances + row * args.width + f);
    Part result;
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      const A change = slope(grad, widen(instance.values[k]) - widen(other.values[k]));
      result.values[k] = narrow<T>(change);
      sum[k] -= change;
    }
    if (grads.instances != nullptr) {
      result.store(grads.instances + row * args.width + f);
    }
    if (position + 1 == last || keys[position + 1] != label) {
      A* to = sums + (begun_earlier ? args.classes + chunk : label) * args.width + f;
#pragma unroll
      for (int k = 0; k < kVector; ++k) {
        to[k] = sum[k];
        sum[k] = 0;
      }
      begun_earlier = false;
    }
  }
}

// The gradient of the table from the sums of the chunks that a class's rows lie in. A block takes kClassColumns columns of
// a class, each of its warps every so many chunks.
template <typename T>
__global__ void __launch_bounds__(kL1Threads) l1_classes_kernel(
    const L1Inputs<T> args, const int64_t* begin, const int64_t* end, const Accumulate<T>* sums, T* grad_table) {
  using A = Accumulate<T>;
  constexpr int kWarps = kL1Threads / kClassColumns;
  A* scratch = reinterpret_cast<A*>(shared_memory());  // [kL1Threads]
  const int64_t blocks = (args.width + kClassColumns - 1) / kClassColumns;
  const int64_t label = blockIdx.x / blocks;
  const int64_t f = blockIdx.x % blocks * kClassColumns + threadIdx.x % kClassColumns;
  const int warp = threadIdx.x / kClassColumns;
  A sum = 0;
  if (f < args.width && end[label] > begin[label]) {
    const int64_t first = begin[label] / kL1Rows;
    const int64_t last = (end[label] - 1) / kL1Rows;
    for (int64_t chunk = first + warp; chunk <= last; chunk += kWarps) {
      sum += sums[(chunk == first ? label : args.classes + chunk) * args.width + f];
    }
  }
  scratch[threadIdx.x] = sum;
  barrier();
  if (warp == 0 && f < args.width) {
    for (int other = 1; other < kWarps; ++other) {
      sum += scratch[other * kClassColumns + threadIdx.x];
    }
    grad_table[label * args.width + f] = narrow<T>(sum);
  }
}

}  // namespace mcfa_fast
