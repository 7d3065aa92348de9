// What turns the sums of the pair kernels into losses, and their gradients into those of the inputs: O((N + C) D).
#pragma once

#include "rows.cuh"

namespace mcfa_fast {

// Log-sum-exps as the forward pair kernels leave them: [splits, rows] each.
template <typename A>
struct SplitSums {
  const A* largest;
  const A* sum;
  int64_t splits;
  int64_t rows;

  __device__ __forceinline__ A value(int64_t row) const {
    LogSum<A> total{-INFINITY, 0};
    for (int64_t split = 0; split < splits; ++split) {
      total.merge(largest[split * rows + row], sum[split * rows + row]);
    }
    return total.value();
  }
  // The same by a warp, whose lanes share the splits.
  __device__ __forceinline__ A warp_value(int64_t row) const {
    return warp_total(row).value();
  }
  __device__ __forceinline__ LogSum<A> warp_total(int64_t row) const {
    LogSum<A> total{-INFINITY, 0};
    for (int64_t split = threadIdx.x % 32; split < splits; split += 32) {
      total.merge(largest[split * rows + row], sum[split * rows + row]);
    }
    for (int mask = 16; mask > 0; mask /= 2) {
      total.merge(shuffle_xor(total.largest, mask), shuffle_xor(total.sum, mask));
    }
    return total;
  }
};

// What one loss leaves per anchor, in the order of the input. A null `loss` means that it is not wanted.
template <typename A>
struct AnchorResults {
  A* loss;
  A* lse;
  A* lse_positives;
};

template <typename T>
struct FinishVisual {
  using A = Accumulate<T>;
  const T* latents;
  int64_t rows;
  int64_t width;
  const double* temperature;
  bool normalized;
  bool in_form;
  const int64_t* order;
  const int64_t* kept;
  const int64_t* begin;
  const int64_t* end;
  const A* class_sums;  // in the rows where the classes begin ("out" form)
  const A* products;    // with the own class (VtoS)
  SplitSums<A> others;
  SplitSums<A> positives;
  SplitSums<A> over_classes;
  AnchorResults<A> vtov;
  AnchorResults<A> vtos;
};

// VtoV and VtoS of every instance. A warp per row.
template <typename T>
__global__ void __launch_bounds__(kRowThreads) finish_visual_kernel(const FinishVisual<T> args) {
  using A = Accumulate<T>;
  const int64_t row = global_warp();
  if (row >= args.rows) {
    return;
  }
  const auto scaling = DeviceScaling<A>::read(args.temperature, args.normalized);
  const A poison = scaling.scale * 0;  // NaN for an impossible temperature
  const bool kept = row < *args.kept;
  const bool writes = threadIdx.x % 32 == 0;
  const int64_t anchor = args.order[row];
  if (args.vtov.loss != nullptr) {
    const int64_t others = kept ? args.end[row] - args.begin[row] - 1 : 0;
    A loss = poison;
    A lse = 0;
    A lse_positives = 0;
    if (others > 0) {
      lse = args.others.warp_value(row);
      if (args.in_form) {
        lse_positives = args.positives.warp_value(row);
        loss += lse - (lse_positives - log(static_cast<A>(others)));
      } else {
        const T* u = args.latents + row * args.width;
        const A with_class = dot_rows(u, args.class_sums + args.begin[row] * args.width, args.width);
        const A with_itself = dot_rows(u, u, args.width);
        loss += lse - scaling.scale * (with_class - with_itself) / static_cast<A>(others);
      }
    }
    if (writes) {
      args.vtov.loss[anchor] = loss;
      args.vtov.lse[anchor] = lse;
      if (args.in_form) {
        args.vtov.lse_positives[anchor] = lse_positives;
      }
    }
  }
  if (args.vtos.loss != nullptr) {
    const A lse = kept ? args.over_classes.warp_value(row) : A(0);
    if (writes) {
      args.vtos.loss[anchor] = poison + (kept ? lse - scaling.scale * args.products[row] : A(0));
      args.vtos.lse[anchor] = lse;
    }
  }
}

// StoV of every class. A thread per class; class_products as class_products_kernel leaves them.
template <typename A>
__global__ void __launch_bounds__(kRowThreads) finish_semantic_kernel(
    int64_t classes, const double* temperature, bool normalized, bool in_form, const int64_t* begin, const int64_t* end,
    const A* class_products, const SplitSums<A> over_instances, const AnchorResults<A> stov) {
  const int64_t label = global_thread();
  if (label >= classes) {
    return;
  }
  const auto scaling = DeviceScaling<A>::read(temperature, normalized);
  const int64_t count = end[label] - begin[label];
  const A lse = over_instances.value(label);
  A loss = scaling.scale * 0;
  if (count > 0) {
    loss += lse -
        (in_form ? static_cast<A>(kLn2) * class_products[label] - log(static_cast<A>(count))
                 : scaling.scale * class_products[label]);
  }
  stov.loss[label] = loss;
  stov.lse[label] = lse;
}

// One loss's gradient per anchor and what follows from it for the pair kernels (see PairTerms), in sorted order.
template <typename A>
struct AnchorTerms {
  const A* grad_loss;  // null: no gradient
  int64_t stride;      // 0 for a reduced loss, 1 for one per anchor
  const int64_t* divisor;  // for a mean, null otherwise
  const int64_t* order;    // null: anchors are in order already
  const int64_t* begin;
  const int64_t* end;
  int64_t least;  // rows of a class that make its anchors count
  int64_t rows;
  const A* lse;
  const A* lse_positives;  // null: positives lose the gradient divided by their number
  const double* temperature;
  bool normalized;
  const A* boost;  // factor for the pair kernels, null: 1
  A* grad;         // [rows] each
  A* weight;
  A* shift2;
  A* positive_weight;
  A* positive_shift2;
};

template <typename A>
__global__ void __launch_bounds__(kRowThreads) anchor_terms_kernel(const AnchorTerms<A> args) {
  const int64_t row = global_thread();
  if (row >= args.rows) {
    return;
  }
  const auto scaling = DeviceScaling<A>::read(args.temperature, args.normalized);
  const int64_t anchor = args.order == nullptr ? row : args.order[row];
  const int64_t size = args.end[row] - args.begin[row];
  A grad = 0;
  if (args.grad_loss != nullptr && size >= args.least) {
    grad = args.grad_loss[anchor * args.stride];
    if (args.divisor != nullptr && *args.divisor > 1) {
      grad /= static_cast<A>(*args.divisor);
    }
  }
  args.grad[row] = grad;
  const A boosted = args.boost == nullptr ? grad : grad * *args.boost;
  const auto set = [&](const A* lse, A* weight, A* shift2) {
    weight[row] = 0;
    shift2[row] = INFINITY;
    if (grad != 0) {
      shift2[row] = lse[anchor] * static_cast<A>(1 / kLn2);
      weight[row] = scaling.bounded ? boosted * exp2_fast(scaling.scale2 - shift2[row]) : boosted;
    }
  };
  set(args.lse, args.weight, args.shift2);
  if (args.lse_positives != nullptr) {
    set(args.lse_positives, args.positive_weight, args.positive_shift2);
  } else {
    args.positive_weight[row] = size > 1 ? boosted / static_cast<A>(size - 1) : A(0);
  }
}

// weights[row] = gradient of VtoS + gradient of StoV times the instance's share in it, times boost: what the pair of the
// instance and its own class loses of its weight.
template <typename A>
__global__ void __launch_bounds__(kRowThreads) own_weights_kernel(
    int64_t rows, const double* temperature, bool in_form, const int64_t* keys, const int64_t* kept,
    const int64_t* begin, const int64_t* end, const A* products, const A* class_products, const A* grad_vtos,
    const A* grad_stov, const A* boost, A* weights) {
  const int64_t row = global_thread();
  if (row >= rows) {
    return;
  }
  A weight = 0;
  if (row < *kept) {
    const A scale2 = DeviceScaling<A>::read(temperature, true).scale2;
    const int64_t label = keys[row];
    const A share =
        in_form ? exp2_fast(scale2 * products[row] - class_products[label]) : A(1) / static_cast<A>(end[row] - begin[row]);
    weight = grad_vtos[row] + grad_stov[label] * share;
  }
  weights[row] = boost == nullptr ? weight : weight * *boost;
}

template <typename T>
struct PullBack {
  using A = Accumulate<T>;
  const T* input;  // [rows, width]
  const A* inverse_norms;
  int64_t rows;
  int64_t width;
  int64_t padded;
  const double* temperature;
  bool normalized;
  const A* boost;
  A* sums;  // [splits, rows, padded]
  int64_t splits;
  A* along;       // [rows]
  T* grad_input;  // [rows, width]
};

// The gradient of each input row from the pair kernels' sums, through similarity and normalisation, and each latent's
// product with its sum. Row k of the latents is row order[k] of the input (order null: k); rows from *kept on get 0.
// A warp per row.
template <typename T>
__global__ void __launch_bounds__(kRowThreads) pull_back_kernel(
    const PullBack<T> args, const int64_t* order, const int64_t* kept) {
  using A = Accumulate<T>;
  const int64_t row = global_warp();
  const int lane = threadIdx.x % 32;
  if (row >= args.rows) {
    return;
  }
  const int64_t place = order == nullptr ? row : order[row];
  T* grad_input = args.grad_input + place * args.width;
  A along = 0;
  if (row >= kept_count(kept, args.rows)) {
    for (int64_t d = lane; d < args.width; d += 32) {
      grad_input[d] = narrow<T>(A(0));
    }
  } else {
    const T* x = args.input + place * args.width;
    A* sums = args.sums + row * args.padded;
    const A inverse_norm = args.inverse_norms[row];
    const A scale = DeviceScaling<A>::read(args.temperature, args.normalized).scale;
    const A factor = args.boost == nullptr ? A(1) : 1 / *args.boost;
    for (int64_t d = lane; d < args.width; d += 32) {
      A total = 0;
      for (int64_t split = 0; split < args.splits; ++split) {
        total += sums[split * args.rows * args.padded + d];
      }
      total *= factor;
      sums[d] = total;
      along += widen(x[d]) * inverse_norm * total;
    }
    along = warp_sum(along);
    // A latent shorter than 1e-12 was only divided by that, as in torch.nn.functional.normalize.
    const A on_sphere = args.normalized && inverse_norm < A(1e12) ? along : A(0);
    for (int64_t d = lane; d < args.width; d += 32) {
      grad_input[d] = narrow<T>((sums[d] - widen(x[d]) * inverse_norm * on_sphere) * inverse_norm * scale);
    }
  }
  if (lane == 0) {
    args.along[row] = along;
  }
}

}  // namespace mcfa_fast
