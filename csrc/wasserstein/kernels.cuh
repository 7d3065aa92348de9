// Device kernels of the Wasserstein alignment: one pass over memory forward and one backward. A group of lanes takes a
// row.
#pragma once

#include "../common/lanes.cuh"

namespace mcfa_fast {

constexpr int kWassersteinThreads = 256;
constexpr int64_t kWassersteinRows = 64;  // rows of one group in the backward pass

// The standard deviation e^(logvar / 2).
template <typename A>
__device__ __forceinline__ A deviation(A logvar) {
  return exp_fast(A(0.5) * logvar);
}

template <typename T>
struct Gaussians {
  const T* mean_a;    // [rows, width]
  const T* logvar_a;
  const T* mean_b;    // [classes, width], or [rows, width] without labels
  const T* logvar_b;
  int64_t rows;
  int64_t classes;
  int64_t width;
  int group;  // lanes per row, a power of two up to 32
};

// distance [rows] of each row of a from its row of b, which labels (null: none) give.
template <typename T, int kVector>
__global__ void __launch_bounds__(kWassersteinThreads) wasserstein_forward_kernel(
    const Gaussians<T> args, const int64_t* labels, Accumulate<T>* distance) {
  using A = Accumulate<T>;
  using Part = Lanes<T, kVector>;
  const int64_t row = global_thread() / args.group;
  A sum = 0;
  if (row < args.rows) {
    int64_t other = row;
    if (labels != nullptr) {
      other = labels[row];
      MCFA_DEVICE_ASSERT(
          other >= 0 && other < args.classes, "expected every entry of `labels` to be a class in [0, C)");
    }
    for (int64_t d = threadIdx.x % args.group * kVector; d < args.width; d += args.group * kVector) {
      const auto mean_a = Part::load(args.mean_a + row * args.width + d);
      const auto logvar_a = Part::load(args.logvar_a + row * args.width + d);
      const auto mean_b = Part::load(args.mean_b + other * args.width + d);
      const auto logvar_b = Part::load(args.logvar_b + other * args.width + d);
#pragma unroll
      for (int k = 0; k < kVector; ++k) {
        const A mean = widen(mean_a.values[k]) - widen(mean_b.values[k]);
        const A spread = deviation(widen(logvar_a.values[k])) - deviation(widen(logvar_b.values[k]));
        sum += mean * mean + spread * spread;
      }
    }
  }
  for (int mask = args.group / 2; mask > 0; mask /= 2) {
    sum += shuffle_xor(sum, mask);
  }
  if (row < args.rows && threadIdx.x % args.group == 0) {
    distance[row] = sqrt(sum);
  }
}

template <typename T>
struct WassersteinGrads {
  const Accumulate<T>* grad_loss;
  int64_t stride;       // 0 for a reduced loss, 1 for one per row
  Accumulate<T> scale;  // 1, or 1 / rows for a mean
  const Accumulate<T>* distance;
  T* mean_a;
  T* logvar_a;
  T* mean_b;
  T* logvar_b;
};

// What a class's rows bring to its gradients, in steps of a fixed order: each group of lanes takes kWassersteinRows rows in
// the order of the sorted labels and leaves its sums in [class] for the classes that begin there, in
// [classes + group's number] for the class that began earlier.
template <typename A>
struct ClassSums {
  A* mean;       // [classes + groups, width]
  A* deviation;
};

// Gradients of a; and those of b without labels (`keys` null). `keys` and `order` are the sorted labels and their rows.
template <typename T, int kVector>
__global__ void __launch_bounds__(kWassersteinThreads) wasserstein_backward_kernel(
    const Gaussians<T> args, const WassersteinGrads<T> grads, const int64_t* keys, const int64_t* order,
    const ClassSums<Accumulate<T>> sums) {
  using A = Accumulate<T>;
  using Part = Lanes<T, kVector>;
  const int64_t group = global_thread() / args.group;
  const int64_t first = group * kWassersteinRows;
  const int64_t last = first + kWassersteinRows < args.rows ? first + kWassersteinRows : args.rows;
  if (first >= last) {
    return;
  }
  for (int64_t d = threadIdx.x % args.group * kVector; d < args.width; d += args.group * kVector) {
    A sum_mean[kVector] = {};
    A sum_deviation[kVector] = {};
    Part mean_b;
    A deviation_b[kVector];
    bool begun_earlier = keys != nullptr && first > 0 && keys[first - 1] == keys[first];
    for (int64_t position = first; position < last; ++position) {
      const int64_t row = keys == nullptr ? position : order[position];
      const int64_t other = keys == nullptr ? position : keys[position];
      if (keys == nullptr || position == first || keys[position - 1] != other) {
        mean_b = Part::load(args.mean_b + other * args.width + d);
        const auto logvar_b = Part::load(args.logvar_b + other * args.width + d);
#pragma unroll
        for (int k = 0; k < kVector; ++k) {
          deviation_b[k] = deviation(widen(logvar_b.values[k]));
        }
      }
      const A distance = grads.distance[row];
      const A weight = distance > 0 ? grads.scale * grads.grad_loss[row * grads.stride] / distance : A(0);
      const auto mean_a = Part::load(args.mean_a + row * args.width + d);
      const auto logvar_a = Part::load(args.logvar_a + row * args.width + d);
      Part grad_mean;
      Part grad_logvar;
      A mean[kVector];
      A spread[kVector];
#pragma unroll
      for (int k = 0; k < kVector; ++k) {
        const A deviation_a = deviation(widen(logvar_a.values[k]));
        mean[k] = weight * (widen(mean_a.values[k]) - widen(mean_b.values[k]));
        spread[k] = weight * (deviation_a - deviation_b[k]);
        grad_mean.values[k] = narrow<T>(mean[k]);
        grad_logvar.values[k] = narrow<T>(A(0.5) * deviation_a * spread[k]);
        sum_mean[k] -= mean[k];
        sum_deviation[k] -= spread[k];
      }
      grad_mean.store(grads.mean_a + row * args.width + d);
      grad_logvar.store(grads.logvar_a + row * args.width + d);
      if (keys == nullptr) {
#pragma unroll
        for (int k = 0; k < kVector; ++k) {
          grad_mean.values[k] = narrow<T>(-mean[k]);
          grad_logvar.values[k] = narrow<T>(A(-0.5) * deviation_b[k] * spread[k]);
        }
        grad_mean.store(grads.mean_b + row * args.width + d);
        grad_logvar.store(grads.logvar_b + row * args.width + d);
      } else if (position + 1 == last || keys[position + 1] != other) {
        const int64_t at = (begun_earlier ? args.classes + group : other) * args.width + d;
#pragma unroll
        for (int k = 0; k < kVector; ++k) {
          sums.mean[at + k] = sum_mean[k];
          sums.deviation[at + k] = sum_deviation[k];
          sum_mean[k] = sum_deviation[k] = 0;
        }
        begun_earlier = false;
      }
    }
  }
}

// Gradients of b with labels, from the sums of the groups that its run of rows crosses. A block per class.
template <typename T>
__global__ void __launch_bounds__(kWassersteinThreads) wasserstein_classes_kernel(
    const Gaussians<T> args, const WassersteinGrads<T> grads, const int64_t* begin, const int64_t* end,
    const ClassSums<Accumulate<T>> sums) {
  using A = Accumulate<T>;
  const int64_t label = blockIdx.x;
  const bool some = end[label] > begin[label];
  const int64_t first_group = begin[label] / kWassersteinRows;
  const int64_t last_group = some ? (end[label] - 1) / kWassersteinRows : first_group;
  for (int64_t d = threadIdx.x; d < args.width; d += blockDim.x) {
    const int64_t at = label * args.width + d;
    A mean = some ? sums.mean[at] : A(0);
    A spread = some ? sums.deviation[at] : A(0);
    for (int64_t group = first_group + 1; group <= last_group; ++group) {
      mean += sums.mean[(args.classes + group) * args.width + d];
      spread += sums.deviation[(args.classes + group) * args.width + d];
    }
    grads.mean_b[at] = narrow<T>(mean);
    grads.logvar_b[at] = narrow<T>(A(0.5) * deviation(widen(args.logvar_b[at])) * spread);
  }
}

}  // namespace mcfa_fast
