// The contrastive losses on the CPU, backward: every tile of similarities is computed once more, turned
// into the weights of the two log-sum-exps it belongs to, and multiplied back onto the latents.
#include <ATen/ATen.h>

#include "../../common/reduce.h"
#include "../op.h"
#include "products.h"

namespace mcfa_fast {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// d loss / d (anchor's loss), read by the anchor's place in the input; 0 for a loss that has no gradient.
template <typename T>
class AnchorGrads {
 public:
  AnchorGrads(const OptionalTensor& grad, Reduction reduction, int64_t valid_anchors) {
    if (grad) {
      grads_.emplace(*grad, reduction, valid_anchors);
    }
  }

  explicit operator bool() const {
    return grads_.has_value();
  }
  T operator[](int64_t anchor) const {
    return grads_ ? (*grads_)[anchor] : T(0);
  }

 private:
  std::optional<RowGrads<T>> grads_;
};

// VtoV: adds Σ_j (g_i e^{s_ij - L_i} + g_j e^{s_ij - L_j}) u_j to row i of `grad`, less the same over the
// positives alone for the "in" form.
template <typename T>
void add_visual_pairs(
    const Latents<T>& visual, const SortedLabels& labels, const SoftmaxWeights<T>& others,
    const SoftmaxWeights<T>* positives, Tensor& grad) {
  const auto tiling = Tiling::of(visual.rows());
  auto spaces = workspaces<T>();
  for_each_pair(SymmetricSchedule(tiling.count()), [&](const TilePair& pair, int thread) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto& space = spaces[thread];
    const auto left = rows_of(visual.values(), tiling, pair.row);
    const auto right = rows_of(visual.values(), tiling, pair.column);
    const auto tile = space.multiply(left, right);
    const auto side = [&](int64_t first) {
      return TileWeights<T>{labels.run_of.data() + first, &others, positives, first};
    };
    weight_labelled_tile(tile, side(tiling.begin(pair.row)), side(tiling.begin(pair.column)), T(-1), space);
    const bool diagonal = pair.row == pair.column;
    if (diagonal) {
      set_diagonal(tile, T(0));
    }
    add_product_(rows_of(grad, tiling, pair.row), space.matrix, right);
    if (!diagonal) {
      add_product_(rows_of(grad, tiling, pair.column), space.matrix.t(), left);
    }
  });
}

// VtoS and StoV: the same for the pairs of instances and classes, into both gradients.
template <typename T>
void add_cross_pairs(
    const Latents<T>& visual, const Latents<T>& semantic, const SoftmaxWeights<T>& instances,
    const SoftmaxWeights<T>& classes, Tensor& grad_visual, Tensor& grad_semantic) {
  const auto rows = Tiling::of(visual.rows());
  const auto columns = Tiling::of(semantic.rows());
  const CrossSchedule schedule(rows.count(), columns.count());
  const bool shared = schedule.replicas() > 1;
  auto replicas = shared
      ? at::zeros({schedule.replicas(), semantic.rows(), semantic.columns()}, grad_semantic.options())
      : grad_semantic.unsqueeze(0);
  auto spaces = workspaces<T>();
  for_each_pair(schedule, [&](const TilePair& pair, int thread) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto& space = spaces[thread];
    const auto left = rows_of(visual.values(), rows, pair.row);
    const auto right = rows_of(semantic.values(), columns, pair.column);
    const auto tile = space.multiply(left, right);
    SoftmaxWeights<T>::apply(tile, instances, rows.begin(pair.row), classes, columns.begin(pair.column));
    add_product_(rows_of(grad_visual, rows, pair.row), space.matrix, right);
    add_product_(
        rows_of(replicas.select(0, pair.replica), columns, pair.column), space.matrix.t(), left);
  });
  if (shared) {
    grad_semantic.add_(replicas.sum(0));
  }
}

// The positive terms of VtoV, "out" form: -Σ_p (g_i + g_p) / |P| u_p, from the class sums of u and g u.
template <typename T>
void add_class_sums(
    const Latents<T>& visual, const SortedLabels& labels, const std::vector<T>& anchor_grads, T* grad) {
  const int64_t width = visual.columns();
  for_each_class(labels, [&](const ClassRun& run) {
    if (run.size() < 2) {
      return;
    }
    const auto sum = class_sum(visual, run);
    const auto weighted = class_sum(visual, run, anchor_grads.data());
    const T share = T(-1) / static_cast<T>(run.size() - 1);
    for (int64_t row = run.begin; row < run.end; ++row) {
      T* to = grad + row * width;
      add_scaled_row(to, sum.data(), width, share * anchor_grads[row]);
      add_scaled_row(to, weighted.data(), width, share);
      add_scaled_row(to, visual.row(row), width, -2 * share * anchor_grads[row]);
    }
  });
}

// The positive terms of VtoS and StoV: each instance with its own class.
template <typename T>
void add_own_classes(
    const Latents<T>& visual, const Latents<T>& semantic, const SortedLabels& labels, const AnchorGrads<T>& grad_vtos,
    const AnchorGrads<T>& grad_stov, Positives positives, T scale, T* grad_visual, T* grad_semantic) {
  const int64_t width = visual.columns();
  const bool in_form = positives == Positives::kIn && grad_stov;
  const auto products = in_form ? own_class_products(visual, semantic, labels) : std::vector<T>();
  for_each_class(labels, [&](const ClassRun& run) {
    const T class_grad = grad_stov[run.label];
    const T log_sum_exp = in_form ? class_log_sum_exp(products, run, scale) : T(0);
    for (int64_t row = run.begin; row < run.end; ++row) {
      const T share =
          in_form ? std::exp(scale * products[row] - log_sum_exp) : T(1) / static_cast<T>(run.size());
      const T weight = -(grad_vtos[labels.order[row]] + class_grad * share);
      add_scaled_row(grad_visual + row * width, semantic.row(run.label), width, weight);
      add_scaled_row(grad_semantic + run.label * width, visual.row(row), width, weight);
    }
  });
}

// Takes the gradient with respect to the rows u of `latents` (of dot products, so times scale) through
// the normalisation to row input_row(k) of the result, and adds Σ u·grad to `along`.
template <typename T, typename InputRow>
Tensor pull_back(
    const Latents<T>& latents, Tensor& grad, T scale, int64_t input_rows, const InputRow& input_row, double& along) {
  const int64_t width = latents.columns();
  auto result = at::zeros({input_rows, width}, grad.options());
  T* from = grad.template mutable_data_ptr<T>();
  T* to = result.template mutable_data_ptr<T>();
  std::vector<double> row_along(latents.rows());
  at::parallel_for(0, latents.rows(), kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      T* g = from + row * width;
      row_along[row] = dot_row(latents.row(row), g, width);
      for (int64_t d = 0; d < width; ++d) {
        g[d] *= scale;
      }
      latents.pull_back(row, g, to + input_row(row) * width);
    }
  });
  along += std::accumulate(row_along.begin(), row_along.end(), 0.0);
  return result;
}

template <typename T>
ContrastiveInputGrads backward(
    const ContrastiveInputs& inputs, const ContrastiveLossGrads& grads, const ContrastiveSums& log_sum_exps) {
  const double temperature = read_temperature(inputs.temperature, c10::CppTypeToScalarType<T>::value);
  const auto scaling = Scaling<T>::of(temperature, inputs.normalize);
  const int64_t classes = inputs.classes();
  const bool in_form = inputs.in_form();
  const auto reduction = inputs.reduction;
  // The caller may have written to the labels since forward looked at them.
  const auto labels =
      sort_labels(inputs.labels, inputs.ignore_index, grads.cross() ? std::optional(classes) : std::nullopt);
  const Latents<T> visual(inputs.visual, labels.order, inputs.normalize);
  auto grad_visual = at::zeros_like(visual.values());
  double along = 0;  // Σ u·grad over all latents

  const AnchorGrads<T> grad_vtov(grads.vtov, reduction, instances_with_positive(labels));
  if (grad_vtov) {
    const auto lse_vtov = log_sum_exps.vtov.contiguous();
    const auto lse_positives = log_sum_exps.positives.contiguous();
    std::vector<T> anchor_grads(visual.rows(), T(0));
    SoftmaxWeights<T> others(visual.rows(), scaling);
    SoftmaxWeights<T> of_class(in_form ? visual.rows() : 0, scaling);
    for (int64_t row = 0; row < visual.rows(); ++row) {
      const int64_t anchor = labels.order[row];
      if (labels.run(row).size() > 1) {
        anchor_grads[row] = grad_vtov[anchor];
        others.set(row, anchor_grads[row], lse_vtov.const_data_ptr<T>()[anchor]);
        if (in_form) {
          of_class.set(row, anchor_grads[row], lse_positives.const_data_ptr<T>()[anchor]);
        }
      }
    }
    add_visual_pairs(visual, labels, others, in_form ? &of_class : nullptr, grad_visual);
    if (!in_form) {
      add_class_sums(visual, labels, anchor_grads, grad_visual.template mutable_data_ptr<T>());
    }
  }

  auto grad_semantic = at::empty({0}, grad_visual.options());
  if (inputs.semantic) {
    const Latents<T> semantic(*inputs.semantic, inputs.normalize);
    auto grad = at::zeros_like(semantic.values());
    const AnchorGrads<T> grad_vtos(grads.vtos, reduction, visual.rows());
    const AnchorGrads<T> grad_stov(grads.stov, reduction, static_cast<int64_t>(labels.runs.size()));
    if (grads.cross()) {
      const auto lse_vtos = log_sum_exps.vtos.contiguous();
      const auto lse_stov = log_sum_exps.stov.contiguous();
      SoftmaxWeights<T> of_instances(visual.rows(), scaling);
      for (int64_t row = 0; grad_vtos && row < visual.rows(); ++row) {
        const int64_t anchor = labels.order[row];
        of_instances.set(row, grad_vtos[anchor], lse_vtos.const_data_ptr<T>()[anchor]);
      }
      SoftmaxWeights<T> of_classes(classes, scaling);
      for (const auto& run : labels.runs) {
        if (grad_stov) {
          of_classes.set(run.label, grad_stov[run.label], lse_stov.const_data_ptr<T>()[run.label]);
        }
      }
      add_cross_pairs(visual, semantic, of_instances, of_classes, grad_visual, grad);
      add_own_classes(
          visual, semantic, labels, grad_vtos, grad_stov, inputs.positives, scaling.scale,
          grad_visual.template mutable_data_ptr<T>(), grad.template mutable_data_ptr<T>());
    }
    grad_semantic = pull_back(semantic, grad, scaling.scale, classes, [](int64_t row) { return row; }, along)
                        .to(inputs.semantic->scalar_type());
  }
  const auto input_row = [&](int64_t row) { return labels.order[row]; };
  grad_visual =
      pull_back(visual, grad_visual, scaling.scale, inputs.instances(), input_row, along).to(inputs.visual.scalar_type());

  // Every similarity is v·u / temperature, so Σ_s (d loss / d s) s, which is -temperature times the gradient
  // looked for, is half of what the latents see along themselves.
  const double grad_temperature = -along / (2 * temperature * temperature);
  return {grad_visual, grad_semantic, at::full({}, grad_temperature, inputs.temperature.options())};
}

ContrastiveInputGrads contrastive_backward_cpu(
    const ContrastiveInputs& inputs, const ContrastiveLossGrads& grads, const ContrastiveSums& log_sum_exps) {
  const bool in_double = accumulation_type(inputs.visual.scalar_type()) == at::kDouble;
  return (in_double ? backward<double> : backward<float>)(inputs, grads, log_sum_exps);
}

MCFA_REGISTER_KERNEL(mcfa_fast, CPU, ContrastiveBackward, contrastive_backward_cpu)

}  // namespace
}  // namespace mcfa_fast
