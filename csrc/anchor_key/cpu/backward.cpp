// The sums over pairs of anchors and keys on the CPU, backward: every tile of similarities is computed once more, turned
// into the weights of the sums it belongs to, and multiplied back onto the latents.
#include <limits>

#include "sides.h"

namespace mcfa_fast {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// The gradients of a side's sums, in sorted order.
template <typename T>
struct Weights {
  SoftmaxWeights<T> all;
  SoftmaxWeights<T> in_positives;
  std::vector<T> out_positives;  // empty if they have no gradient

  Weights(int64_t rows, bool in_form, const Scaling<T>& scaling)
      : all(rows, scaling), in_positives(in_form ? rows : 0, scaling) {}

  // Adds the gradients of a side; an empty sum has none.
  void add(const SideTerms& grads, const SideTerms& sums, const std::vector<int64_t>& order, bool in_form) {
    set(all, grads.log_sum_exp, sums.log_sum_exp, order);
    if (in_form) {
      set(in_positives, grads.positives, sums.positives, order);
    } else if (grads.positives) {
      const auto grad = values(*grads.positives);
      out_positives.resize(order.size());
      for (size_t place = 0; place < order.size(); ++place) {
        out_positives[place] = grad.template const_data_ptr<T>()[order[place]];
      }
    }
  }

 private:
  static Tensor values(const Tensor& tensor) {
    return tensor.to(c10::CppTypeToScalarType<T>::value).contiguous();
  }
  static void set(
      SoftmaxWeights<T>& weights, const OptionalTensor& grads, const OptionalTensor& sums,
      const std::vector<int64_t>& order) {
    if (!grads) {
      return;
    }
    const auto grad = values(*grads);
    const auto sum = values(*sums);
    for (size_t place = 0; place < order.size(); ++place) {
      const T log_sum_exp = sum.template const_data_ptr<T>()[order[place]];
      if (log_sum_exp != -std::numeric_limits<T>::infinity()) {
        weights.set(place, grad.template const_data_ptr<T>()[order[place]], log_sum_exp);
      }
    }
  }
};

// What both sides of a pair of blocks are weighted with. A side without gradients has weights of 0, which begin at row 0
// of every block.
template <typename T>
struct PairWeights {
  const Weights<T>& rows;
  const Weights<T>& columns;
  int64_t first_row;
  int64_t first_column;

  T row(int64_t i) const {
    return rows.out_positives.empty() ? T(0) : rows.out_positives[first_row + i];
  }
  T column(int64_t j) const {
    return columns.out_positives.empty() ? T(0) : columns.out_positives[first_column + j];
  }
};

// Adds Σ_j w_ij k_j to row i of `of_rows`, and Σ_i w_ij u_i to row j of `of_columns`, unless they are undefined.
template <typename T>
void add_weighted_tiles(
    const BlockPair<T>& pair, const PairWeights<T>& weights, bool in_form, const Tensor& of_rows,
    const Tensor& of_columns) {
  const BlockSchedule schedule(pair);
  const auto copies = [](const Tensor& grad, int64_t replicas) {
    return replicas > 1 && grad.defined() ? at::zeros({replicas, grad.size(0), grad.size(1)}, grad.options())
                                          : grad.defined() ? grad.unsqueeze(0) : grad;
  };
  const auto row_copies = copies(of_rows, schedule.row_replicas());
  const auto column_copies = copies(of_columns, schedule.column_replicas());
  auto spaces = workspaces<T>();
  schedule.for_each([&](const SharedTilePair& tiles, int thread) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto& space = spaces[thread];
    const auto left = rows_of(pair.left.latents.values(), pair.left.tiling, tiles.row);
    const auto right = rows_of(pair.right.latents.values(), pair.right.tiling, tiles.column);
    const auto tile = space.multiply(left, right);
    const int64_t row = pair.left.tiling.begin(tiles.row);
    const int64_t column = pair.right.tiling.begin(tiles.column);
    const auto side = [&](const Block<T>& block, const Weights<T>& of, int64_t first, int64_t place) {
      return TileWeights<T>{block.labels() + place, &of.all, in_form ? &of.in_positives : nullptr, first + place};
    };
    weight_labelled_tile(
        tile, side(pair.left, weights.rows, weights.first_row, row),
        side(pair.right, weights.columns, weights.first_column, column), T(1), space);
    pair.set_selves(tile, row, column, T(0));
    if (of_rows.defined()) {
      add_product_(rows_of(row_copies.select(0, tiles.row_replica), pair.left.tiling, tiles.row), space.matrix, right);
    }
    const auto& other = pair.diagonal ? row_copies : column_copies;
    if (other.defined() && !(pair.diagonal && tiles.row == tiles.column)) {
      add_product_(
          rows_of(other.select(0, tiles.column_replica), pair.right.tiling, tiles.column), space.matrix.t(), left);
    }
  });
  if (schedule.row_replicas() > 1 && of_rows.defined()) {
    of_rows.add_(row_copies.sum(0));
  }
  if (schedule.column_replicas() > 1 && of_columns.defined()) {
    of_columns.add_(column_copies.sum(0));
  }
}

// The same for the positives of the "out" form, w_ij = g_i + h_j for pairs of a class: from sums over classes.
template <typename T>
void add_weighted_classes(
    const BlockPair<T>& pair, const PairWeights<T>& weights, const Tensor& of_rows, const Tensor& of_columns) {
  const int64_t width = pair.left.latents.columns();
  const auto pointer = [](const Tensor& grad) { return grad.defined() ? grad.template mutable_data_ptr<T>() : nullptr; };
  T* row_grads = pointer(of_rows);
  T* column_grads = pointer(of_columns);
  // Adds to the rows of a run the sum over the other run, each of whose rows has a weight of its own.
  const auto add_side = [&](T* grads, const ClassRun& run, const auto& own, const Block<T>& others,
                            const ClassRun& others_run, const Weights<T>& others_weights, int64_t first) {
    if (grads == nullptr) {
      return;
    }
    const auto sum = class_sum(others.latents, others_run);
    const bool weighted = !others_weights.out_positives.empty();
    const auto weighted_sum =
        weighted ? class_sum(others.latents, others_run, others_weights.out_positives.data() + first) : std::vector<T>();
    for (int64_t row = run.begin; row < run.end; ++row) {
      add_scaled_row(grads + row * width, sum.data(), width, own(row));
      if (weighted) {
        add_row(grads + row * width, weighted_sum.data(), width);
      }
    }
  };
  const auto shared = pair.shared_classes();
  at::parallel_for(0, static_cast<int64_t>(shared.size()), 16, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const auto& [i, j] = shared[index];
      add_side(
          row_grads, i, [&](int64_t row) { return weights.row(row); }, pair.right, j, weights.columns,
          weights.first_column);
      add_side(
          column_grads, j, [&](int64_t column) { return weights.column(column); }, pair.left, i, weights.rows,
          weights.first_row);
    }
  });
  pair.for_each_self(0, pair.left.rows(), 0, pair.right.rows(), [&](int64_t i, int64_t j) {
    if (pair.left.labels()[i] != pair.right.labels()[j]) {
      return;
    }
    const T weight = -(weights.row(i) + weights.column(j));
    if (row_grads != nullptr) {
      add_scaled_row(row_grads + i * width, pair.right.latents.row(j), width, weight);
    }
    if (column_grads != nullptr) {
      add_scaled_row(column_grads + j * width, pair.left.latents.row(i), width, weight);
    }
  });
}

// The gradient of a side's input.
template <typename T>
class InputGrad {
 public:
  InputGrad() = default;
  explicit InputGrad(const Tensor& input)
      : values_(at::zeros(input.sizes(), input.options().dtype(c10::CppTypeToScalarType<T>::value))) {}

  explicit operator bool() const {
    return values_.defined();
  }

  // A block's part of the gradient with respect to the normalised rows u, before `scale`; undefined if none is wanted.
  Tensor part(const Block<T>& block) const {
    return values_.defined() ? at::zeros({block.rows(), values_.size(1)}, values_.options()) : Tensor();
  }

  // Takes such a part through the normalisation, and keeps Σ u·part.
  void add(const Block<T>& block, const Tensor& part, T scale) {
    const int64_t width = values_.size(1);
    const int64_t* order = block.side->order.data() + block.first;
    T* from = part.template mutable_data_ptr<T>();
    T* to = values_.template mutable_data_ptr<T>();
    std::vector<double> row_along(block.rows());
    at::parallel_for(0, block.rows(), kRowsPerTask, [&](int64_t begin, int64_t end) {
      std::vector<T> of_input(width);
      for (int64_t row = begin; row < end; ++row) {
        T* g = from + row * width;
        row_along[row] = dot_row(block.latents.row(row), g, width);
        for (int64_t d = 0; d < width; ++d) {
          g[d] *= scale;
        }
        block.latents.pull_back(row, g, of_input.data());
        add_row(to + order[row] * width, of_input.data(), width);
      }
    });
    along_ += std::accumulate(row_along.begin(), row_along.end(), 0.0);
  }

  double along() const {
    return along_;
  }
  Tensor result(at::ScalarType type) const {
    return values_.to(type);
  }

 private:
  Tensor values_;
  double along_ = 0;
};

template <typename T>
AnchorKeyInputGrads backward(
    const AnchorKeyInputs& inputs, const AnchorKeyTerms& grads, const AnchorKeyTerms& sums, AnchorKeyMask mask) {
  const double temperature = read_temperature(inputs.temperature, c10::CppTypeToScalarType<T>::value);
  const auto scaling = Scaling<T>::of(temperature, inputs.normalize);
  const bool in_form = inputs.in_form();
  const Sides sides(inputs);
  const bool own_keys = sides.own_keys();

  const auto [of_anchors, anchor_sums] =
      own_keys ? both_sides(grads, sums) : std::pair(grads.anchors, sums.anchors);
  const SideTerms of_keys = own_keys ? SideTerms{} : grads.keys;
  const bool key_side = of_keys.log_sum_exp || of_keys.positives;
  const auto columns = blocks_of<T>(sides.keys(), inputs.anchors.size(1));
  Weights<T> rows(sides.anchors.size(), in_form, scaling);
  rows.add(of_anchors, anchor_sums, sides.anchors.order, in_form);
  Weights<T> others(own_keys ? 0 : key_side ? sides.keys().size() : columns.tile, in_form, scaling);
  if (key_side) {
    others.add(of_keys, sums.keys, sides.keys().order, in_form);
  }
  const bool with_classes = !in_form && (of_anchors.positives || of_keys.positives);

  // The temperature's gradient takes one side at least.
  InputGrad<T> keys = mask[1] && !own_keys ? InputGrad<T>(*inputs.keys) : InputGrad<T>();
  InputGrad<T> anchors = mask[0] || !keys ? InputGrad<T>(inputs.anchors) : InputGrad<T>();
  auto& other = own_keys ? anchors : keys;
  Tensor row_part;
  for_each_block_pair<T>(
      inputs, sides, [&](const Block<T>& left) { row_part = anchors.part(left); },
      [&](const BlockPair<T>& pair) {
        const PairWeights<T> weights{
            rows, own_keys ? rows : others, pair.left.first, own_keys || key_side ? pair.right.first : 0};
        const auto column_part = pair.diagonal ? Tensor() : other.part(pair.right);
        add_weighted_tiles(pair, weights, in_form, row_part, column_part);
        if (with_classes) {
          add_weighted_classes(pair, weights, row_part, column_part);
        }
        if (column_part.defined()) {
          other.add(pair.right, column_part, scaling.scale);
        }
      },
      [&](const Block<T>& left) {
        if (anchors) {
          anchors.add(left, row_part, scaling.scale);
        }
      });

  // Every similarity is u·k / temperature, so Σ_s (d loss / d s) s, which is -temperature times the gradient looked for,
  // is what one side sees along itself; or half of what rows see that are both.
  const double along = own_keys ? anchors.along() / 2 : anchors ? anchors.along() : keys.along();
  const auto type = inputs.anchors.scalar_type();
  return {
      mask[0] ? anchors.result(type) : Tensor(), keys ? keys.result(type) : Tensor(),
      at::full({}, -along / (temperature * temperature), inputs.temperature.options())};
}

AnchorKeyInputGrads anchor_key_backward_cpu(
    const AnchorKeyInputs& inputs, const AnchorKeyTerms& grads, const AnchorKeyTerms& sums, AnchorKeyMask mask) {
  const bool in_double = accumulation_type(inputs.anchors.scalar_type()) == at::kDouble;
  return (in_double ? backward<double> : backward<float>)(inputs, grads, sums, mask);
}

MCFA_REGISTER_KERNEL(mcfa_fast, CPU, AnchorKeyBackward, anchor_key_backward_cpu)

}  // namespace
}  // namespace mcfa_fast
