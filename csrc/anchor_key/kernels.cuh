// What the sums over pairs of anchors and keys do once per row on the GPU; their pairs go through the kernels of the
// contrastive losses. None of these files includes PyTorch.
#pragma once

#include "../contrastive/cuda/kernels.cuh"

namespace mcfa_fast {

// The run [begin, end) of sorted `columns` that have the row's label, for every row of sorted `rows`; empty for rows that
// are ignored, and in the order of the rows.
static __global__ void shared_runs_kernel(
    const int64_t* rows, int64_t row_count, const int64_t* columns, int64_t column_count, int64_t* begin, int64_t* end) {
  const int64_t row = global_thread();
  if (row < row_count) {
    begin[row] = first_position(columns, column_count, rows[row], false);
    end[row] = rows[row] == kLastKey ? begin[row] : first_position(columns, column_count, rows[row], true);
  }
}

// places [rows of the input]: where a row is in sorted order, or -1 for one that is ignored.
static __global__ void places_kernel(const int64_t* order, int64_t size, const int64_t* kept, int64_t* places) {
  const int64_t place = global_thread();
  if (place < size) {
    places[order[place]] = place < *kept ? place : -1;
  }
}

// selves [anchors, sorted]: the sorted key that is the anchor itself, or -1.
static __global__ void selves_kernel(
    const int64_t* self_index, const int64_t* order, int64_t size, const int64_t* places, int64_t key_count,
    int64_t* selves) {
  const int64_t row = global_thread();
  if (row < size) {
    const int64_t key = self_index[order[row]];
    selves[row] = key >= 0 && key < key_count ? places[key] : -1;
  }
}

template <typename T>
struct FinishSide {
  using A = Accumulate<T>;
  const T* rows;
  const T* columns;
  int64_t row_count;
  int64_t width;
  const double* temperature;
  bool normalized;
  bool in_form;
  bool same;
  SelfPairs selves;
  const int64_t* order;
  const int64_t* kept;
  const int64_t* begin;
  const int64_t* end;
  const A* class_sums;  // of the columns, in those where the classes begin ("out" form)
  SplitSums<A> all;
  SplitSums<A> in_positives;
  A* log_sum_exp;  // in the order of the input
  A* positives;
  int64_t* counts;
};

// What is left of a row, in the order of the input, from the sums of the pair kernels. A warp per row.
template <typename T>
__global__ void __launch_bounds__(kRowThreads) finish_side_kernel(const FinishSide<T> args) {
  using A = Accumulate<T>;
  const int64_t row = global_warp();
  if (row >= args.row_count) {
    return;
  }
  const A scale = DeviceScaling<A>::read(args.temperature, args.normalized).scale;
  const auto or_nothing = [](const LogSum<A>& total) { return total.sum == 0 ? A(-INFINITY) : total.value(); };
  const bool kept = row < *args.kept;
  const A log_sum_exp = kept ? or_nothing(args.all.warp_total(row)) : A(-INFINITY);
  A positives = args.in_form ? A(-INFINITY) : A(0);
  int64_t count = 0;
  const int64_t begin = kept ? args.begin[row] : 0;
  const int64_t end = kept ? args.end[row] : 0;
  if (begin < end) {
    const T* own = args.rows + row * args.width;
    const auto product = [&](int64_t column) { return dot_rows(own, args.columns + column * args.width, args.width); };
    A products = args.in_form ? A(0) : dot_rows(own, args.class_sums + begin * args.width, args.width);
    count = end - begin;
    const auto leave_out = [&](int64_t column) {
      if (column >= begin && column < end) {
        count -= 1;
        products -= args.in_form ? A(0) : product(column);
      }
    };
    if (args.same) {
      leave_out(row);
    } else if (args.selves.of_rows != nullptr) {
      leave_out(args.selves.of_rows[row]);
    } else if (args.selves.of_columns != nullptr) {
      for (int64_t column = begin, last = end; column < last; ++column) {
        leave_out(args.selves.of_columns[column] == row ? column : -1);
      }
    }
    if (count > 0) {
      positives = args.in_form ? or_nothing(args.in_positives.warp_total(row)) : scale * products;
    }
  }
  if (threadIdx.x % 32 == 0) {
    const int64_t place = args.order[row];
    args.log_sum_exp[place] = log_sum_exp;
    args.positives[place] = positives;
    args.counts[place] = count;
  }
}

// The gradients of a side's sums and what follows from them for the pair kernels (see PairTerms), in sorted order.
template <typename A>
struct SideTermsArguments {
  const A* grad_log_sum_exp;  // null: none
  const A* grad_positives;    // null: none
  const A* log_sum_exp;
  const A* positives;  // log-sum-exps; null in the "out" form
  bool in_form;
  const int64_t* order;
  const int64_t* kept;
  int64_t rows;
  const double* temperature;
  bool normalized;
  const A* boost;  // factor for the pair kernels, null: 1
  A* weight;       // [rows] each
  A* shift2;
  A* positive_weight;
  A* positive_shift2;
};

template <typename A>
__global__ void __launch_bounds__(kRowThreads) side_terms_kernel(const SideTermsArguments<A> args) {
  const int64_t row = global_thread();
  if (row >= args.rows) {
    return;
  }
  const auto scaling = DeviceScaling<A>::read(args.temperature, args.normalized);
  const int64_t place = args.order[row];
  const bool kept = row < *args.kept;
  const A factor = args.boost == nullptr ? A(1) : *args.boost;
  const auto set = [&](A grad, const A* sums, A* weight, A* shift2) {
    weight[row] = 0;
    shift2[row] = INFINITY;
    const A log_sum_exp = grad == 0 ? A(-INFINITY) : sums[place];
    if (log_sum_exp != A(-INFINITY)) {  // the gradient of an empty sum is none
      shift2[row] = log_sum_exp * static_cast<A>(1 / kLn2);
      weight[row] = scaling.bounded ? grad * exp2_fast(scaling.scale2 - shift2[row]) : grad;
    }
  };
  const auto grad_of = [&](const A* grads) { return kept && grads != nullptr ? factor * grads[place] : A(0); };
  set(grad_of(args.grad_log_sum_exp), args.log_sum_exp, args.weight, args.shift2);
  // The pair kernels take what belongs to positives from the weight.
  const A of_positives = -grad_of(args.grad_positives);
  if (args.in_form) {
    set(of_positives, args.positives, args.positive_weight, args.positive_shift2);
  } else {
    args.positive_weight[row] = of_positives;
  }
}

}  // namespace mcfa_fast
