// The sums over pairs of anchors and keys on the CPU, forward: similarities exist one tile at a time.
#include <limits>

#include "sides.h"

namespace mcfa_fast {
namespace {

using at::Tensor;

constexpr double kNothing = -std::numeric_limits<double>::infinity();

// What is summed for the rows of a side, in sorted order; of positives a sum ("out") or a log-sum-exp ("in").
template <typename T>
struct Sums {
  bool in_form;
  LogSumExps<T> all;
  LogSumExps<T> in_positives;
  std::vector<double> out_positives;
  std::vector<int64_t> counts;

  Sums(int64_t rows, bool in, const Scaling<T>& scaling)
      : in_form(in),
        all(rows, scaling),
        in_positives(in ? rows : 0, scaling),
        out_positives(in ? 0 : rows, 0.0),
        counts(rows, 0) {}

  // The log-sum-exps of a tile's rows, from sorted row `first` on.
  TileSums<T> tile(const int64_t* labels, int64_t first) {
    return {
        labels, all.view(first), in_form ? std::optional(in_positives.view(first)) : std::nullopt};
  }

  // In the order of the input, whose other rows see no pair.
  SideSums in_input_order(const std::vector<int64_t>& order, int64_t rows, const at::TensorOptions& options) const {
    SideSums result{
        at::full({rows}, kNothing, options), in_form ? at::full({rows}, kNothing, options) : at::zeros({rows}, options),
        at::zeros({rows}, options.dtype(at::kLong))};
    T* log_sum_exp = result.log_sum_exp.template mutable_data_ptr<T>();
    T* positives = result.positives.template mutable_data_ptr<T>();
    int64_t* count = result.counts.template mutable_data_ptr<int64_t>();
    for (size_t place = 0; place < order.size(); ++place) {
      const int64_t row = order[place];
      log_sum_exp[row] = all.is_empty(place) ? static_cast<T>(kNothing) : all.value(place);
      count[row] = counts[place];
      if (counts[place] > 0) {
        positives[row] = in_form ? in_positives.value(place) : static_cast<T>(out_positives[place]);
      }
    }
    return result;
  }
};

// Adds the log-sum-exps of a pair of blocks.
template <typename T>
void add_log_sum_exps(const BlockPair<T>& pair, const Scaling<T>& scaling, Sums<T>& rows, Sums<T>* columns) {
  const auto& left = pair.left;
  const auto& right = pair.right;
  const bool diagonal = pair.diagonal;
  const BlockSchedule schedule(pair);
  const bool in_form = rows.in_form;
  // A block with itself adds to the same sums from both sides.
  Sums<T> of_rows(schedule.row_replicas() * left.rows(), in_form, scaling);
  Sums<T> of_columns(columns == nullptr || diagonal ? 0 : schedule.column_replicas() * right.rows(), in_form, scaling);
  auto& served = diagonal ? of_rows : of_columns;
  auto spaces = workspaces<T>();
  schedule.for_each([&](const SharedTilePair& tiles, int thread) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto& space = spaces[thread];
    const auto tile = space.multiply(
        rows_of(left.latents.values(), left.tiling, tiles.row),
        rows_of(right.latents.values(), right.tiling, tiles.column));
    const int64_t row = left.tiling.begin(tiles.row);
    const int64_t column = right.tiling.begin(tiles.column);
    pair.set_selves(tile, row, column, -std::numeric_limits<T>::infinity());
    const bool serves_columns = diagonal ? tiles.row != tiles.column : columns != nullptr;
    add_labelled_tile(
        tile, scaling, of_rows.tile(left.labels() + row, tiles.row_replica * left.rows() + row),
        served.tile(
            right.labels() + column, serves_columns ? tiles.column_replica * right.rows() + column : 0),
        serves_columns, space.sums);
  });
  const auto merge = [&](Sums<T>& total, int64_t first, const Sums<T>& part, int64_t count, int64_t replicas) {
    for (int64_t index = 0; index < replicas * count; ++index) {
      total.all.merge(first + index % count, part.all, index);
      if (in_form) {
        total.in_positives.merge(first + index % count, part.in_positives, index);
      }
    }
  };
  merge(rows, left.first, of_rows, left.rows(), schedule.row_replicas());
  if (columns != nullptr && !diagonal) {
    merge(*columns, right.first, of_columns, right.rows(), schedule.column_replicas());
  }
}

// Adds the numbers of positives and, for the "out" form, the sums of their similarities, which are products with sums
// over classes.
template <typename T>
void add_positives(const BlockPair<T>& pair, T scale, Sums<T>& rows, Sums<T>* columns) {
  const auto& left = pair.left;
  const auto& right = pair.right;
  const bool serves_columns = columns != nullptr && !pair.diagonal;
  const int64_t width = left.latents.columns();
  const auto add_side = [&](Sums<T>& sums, const Block<T>& block, const ClassRun& run, const Block<T>& others,
                            const ClassRun& others_run) {
    const auto sum = sums.in_form ? std::vector<T>() : class_sum(others.latents, others_run);
    for (int64_t row = run.begin; row < run.end; ++row) {
      sums.counts[block.first + row] += others_run.size();
      if (!sums.in_form) {
        sums.out_positives[block.first + row] += scale * dot_row(block.latents.row(row), sum.data(), width);
      }
    }
  };
  const auto shared = pair.shared_classes();
  at::parallel_for(0, static_cast<int64_t>(shared.size()), 16, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const auto& [i, j] = shared[index];
      add_side(rows, left, i, right, j);
      if (serves_columns) {
        add_side(*columns, right, j, left, i);
      }
    }
  });
  pair.for_each_self(0, left.rows(), 0, right.rows(), [&](int64_t i, int64_t j) {
    if (left.labels()[i] != right.labels()[j]) {
      return;
    }
    const T product = rows.in_form ? T(0) : scale * dot_row(left.latents.row(i), right.latents.row(j), width);
    const auto leave_out = [&](Sums<T>& sums, int64_t row) {
      sums.counts[row] -= 1;
      if (!sums.in_form) {
        sums.out_positives[row] -= product;
      }
    };
    leave_out(rows, left.first + i);
    if (serves_columns) {
      leave_out(*columns, right.first + j);
    }
  });
}

template <typename T>
AnchorKeyResult forward(const AnchorKeyInputs& inputs, bool key_side) {
  const auto type = c10::CppTypeToScalarType<T>::value;
  const auto scaling = Scaling<T>::of(read_temperature(inputs.temperature, type), inputs.normalize);
  const Sides sides(inputs);
  Sums<T> of_anchors(sides.anchors.size(), inputs.in_form(), scaling);
  Sums<T> of_keys(key_side && !sides.own_keys() ? sides.keys().size() : 0, inputs.in_form(), scaling);
  Sums<T>* columns = sides.own_keys() ? &of_anchors : key_side ? &of_keys : nullptr;
  const auto nothing = [](const Block<T>&) {};
  for_each_block_pair<T>(
      inputs, sides, nothing,
      [&](const BlockPair<T>& pair) {
        add_log_sum_exps(pair, scaling, of_anchors, columns);
        add_positives(pair, scaling.scale, of_anchors, columns);
      },
      nothing);
  const auto options = inputs.anchors.options().dtype(type);
  AnchorKeyResult result;
  result.anchors = of_anchors.in_input_order(sides.anchors.order, inputs.anchors.size(0), options);
  if (key_side && sides.own_keys()) {
    const auto& [log_sum_exp, positives, counts] = result.anchors;
    result.keys = {log_sum_exp.clone(), positives.clone(), counts.clone()};
  } else {
    const auto none = std::vector<int64_t>();
    result.keys = of_keys.in_input_order(
        key_side ? sides.keys().order : none, key_side ? inputs.key_rows().size(0) : 0, options);
  }
  return result;
}

AnchorKeyResult anchor_key_forward_cpu(const AnchorKeyInputs& inputs, bool key_side) {
  const bool in_double = accumulation_type(inputs.anchors.scalar_type()) == at::kDouble;
  return (in_double ? forward<double> : forward<float>)(inputs, key_side);
}

MCFA_REGISTER_KERNEL(mcfa_fast, CPU, AnchorKeyForward, anchor_key_forward_cpu)

}  // namespace
}  // namespace mcfa_fast
