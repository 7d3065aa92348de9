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
      lse = args.others.value(row);
      if (args.in_form) {
        lse_positives = args.positives.value(row);
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
  if (args.vtos.loss != nullptr && writes) {
    const A lse = kept ? args.over_classes.value(row) : A(0);
    args.vtos.loss[anchor] = poison + (kept ? lse - scaling.scale * args.products[row] : A(0));
    args.vtos.lse[anchor] = lse;
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
  const A* lse_positives;
  const double* temperature;
  bool normalized;
  const A* boost;  // factor for the pair kernels, null: 1
  A* grad;
  A* weight;
  A* shift2;
  A* positive_weight;  // null if not wanted
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
  A grad = 0;
  if (args.grad_loss != nullptr && args.end[row] - args.begin[row] >= args.least) {
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
  if (args.positive_weight != nullptr) {
    set(args.lse_positives, args.positive_weight, args.positive_shift2);
  }
}

// weights[row] = -(gradient of VtoS + gradient of StoV times the instance's share in it): what the instance and its own
// class bring to each other's gradients.
template <typename A>
__global__ void __launch_bounds__(kRowThreads) own_weights_kernel(
    int64_t rows, const double* temperature, bool in_form, const int64_t* keys, const int64_t* kept,
    const int64_t* begin, const int64_t* end, const A* products, const A* class_products, const A* grad_vtos,
    const A* grad_stov, A* weights) {
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
    weight = -(grad_vtos[row] + grad_stov[label] * share);
  }
  weights[row] = weight;
}

// grad (in place in `total`, a row of the pair kernels' sums) through similarity and normalisation to the input's row;
// returns the latent's product with it. By a warp; term(d) is what is added to the sums.
template <typename T, typename Term>
__device__ __forceinline__ Accumulate<T> pull_back(
    const T* x, Accumulate<T> inverse_norm, bool normalized, Accumulate<T> scale, const Accumulate<T>* unboost,
    Accumulate<T>* sums, int64_t splits, int64_t split_stride, int64_t width, const Term& term, T* grad_x) {
  using A = Accumulate<T>;
  const A factor = unboost == nullptr ? A(1) : 1 / *unboost;
  A along = 0;
  for (int64_t d = threadIdx.x % 32; d < width; d += 32) {
    A total = 0;
    for (int64_t split = 0; split < splits; ++split) {
      total += sums[split * split_stride + d];
    }
    total = total * factor + term(d);
    sums[d] = total;
    along += widen(x[d]) * inverse_norm * total;
  }
  along = warp_sum(along);
  // A latent shorter than 1e-12 was only divided by that, as in torch.nn.functional.normalize.
  const A on_sphere = normalized && inverse_norm < A(1e12) ? along : A(0);
  for (int64_t d = threadIdx.x % 32; d < width; d += 32) {
    grad_x[d] = narrow<T>((sums[d] - widen(x[d]) * inverse_norm * on_sphere) * inverse_norm * scale);
  }
  return along;
}

template <typename T>
struct PullBack {
  using A = Accumulate<T>;
  const T* input;    // [rows, width]
  const T* latents;  // [rows, padded], sorted
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

// Gradient of an instance, with its positive terms: class sums of the latents, plain and times the gradients of VtoV
// ("out" form, null otherwise), and its own class (null without semantic latents). A warp per row.
template <typename T>
__global__ void __launch_bounds__(kRowThreads, 4) pull_back_visual_kernel(
    const PullBack<T> args, const int64_t* order, const int64_t* kept, const int64_t* keys, const int64_t* begin,
    const int64_t* end, const Accumulate<T>* grad_vtov, const Accumulate<T>* class_sums,
    const Accumulate<T>* weighted_class_sums, const Accumulate<T>* own_weights, const T* semantic) {
  using A = Accumulate<T>;
  const int64_t row = global_warp();
  if (row >= args.rows) {
    return;
  }
  T* grad_input = args.grad_input + order[row] * args.width;
  A along = 0;
  if (row >= *kept) {
    for (int64_t d = threadIdx.x % 32; d < args.width; d += 32) {
      grad_input[d] = narrow<T>(A(0));
    }
  } else {
    const int64_t others = end[row] - begin[row] - 1;
    const bool class_terms = class_sums != nullptr && others > 0;
    const A share = class_terms ? A(-1) / static_cast<A>(others) : A(0);
    const T* own = own_weights == nullptr ? nullptr : semantic + keys[row] * args.padded;
    const auto term = [&](int64_t d) {
      A value = own == nullptr ? A(0) : own_weights[row] * widen(own[d]);
      if (class_terms) {
        const int64_t at = begin[row] * args.padded + d;
        const A u = widen(args.latents[row * args.padded + d]);
        value += share * (grad_vtov[row] * (class_sums[at] - u) + (weighted_class_sums[at] - grad_vtov[row] * u));
      }
      return value;
    };
    along = pull_back(
        args.input + order[row] * args.width, args.inverse_norms[row], args.normalized,
        DeviceScaling<A>::read(args.temperature, args.normalized).scale, args.boost, args.sums + row * args.padded,
        args.splits, args.rows * args.padded, args.width, term, grad_input);
  }
  if (threadIdx.x % 32 == 0) {
    args.along[row] = along;
  }
}

// Gradient of a class, with its own instances' sum times own_weights. A warp per class.
template <typename T>
__global__ void __launch_bounds__(kRowThreads, 4) pull_back_semantic_kernel(
    const PullBack<T> args, const int64_t* begin, const int64_t* end, const Accumulate<T>* own_sums) {
  using A = Accumulate<T>;
  const int64_t label = global_warp();
  if (label >= args.rows) {
    return;
  }
  const bool some = end[label] > begin[label];
  const A along = pull_back(
      args.input + label * args.width, args.inverse_norms[label], args.normalized,
      DeviceScaling<A>::read(args.temperature, args.normalized).scale, args.boost, args.sums + label * args.padded,
      args.splits, args.rows * args.padded, args.width,
      [&](int64_t d) { return some ? own_sums[begin[label] * args.padded + d] : A(0); },
      args.grad_input + label * args.width);
  if (threadIdx.x % 32 == 0) {
    args.along[label] = along;
  }
}

}  // namespace mcfa_fast
