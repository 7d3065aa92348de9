// The contrastive losses on the CPU, forward, in memory linear in N + C: similarities exist one cache-sized
// tile at a time.
#include <ATen/ATen.h>

#include "../../common/reduce.h"
#include "../op.h"
#include "products.h"

namespace mcfa_fast {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// Log-sum-exps over all other instances and, for the "in" form, over the other instances of the class.
template <typename T>
void sum_visual_pairs(
    const Latents<T>& visual, const SortedLabels& labels, const Scaling<T>& scaling, LogSumExps<T>& others,
    LogSumExps<T>* positives) {
  const auto tiling = Tiling::of(visual.rows());
  auto spaces = workspaces<T>();
  for_each_pair(SymmetricSchedule(tiling.count()), [&](const TilePair& pair, int thread) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto& space = spaces[thread];
    const auto tile =
        space.multiply(rows_of(visual.values(), tiling, pair.row), rows_of(visual.values(), tiling, pair.column));
    const bool diagonal = pair.row == pair.column;
    if (diagonal) {
      set_diagonal(tile, -std::numeric_limits<T>::infinity());
    }
    const int64_t row = tiling.begin(pair.row);
    const int64_t column = tiling.begin(pair.column);
    const auto side = [&](int64_t first) {
      return TileSums<T>{
          labels.run_of.data() + first, others.view(first),
          positives == nullptr ? std::nullopt : std::optional(positives->view(first))};
    };
    add_labelled_tile(tile, scaling, side(row), side(column), !diagonal, space.sums);
  });
}

// Log-sum-exps of every instance over all classes, and of every class over all instances.
template <typename T>
void sum_cross_pairs(
    const Latents<T>& visual, const Latents<T>& semantic, const Scaling<T>& scaling, LogSumExps<T>& over_classes,
    LogSumExps<T>& over_instances) {
  const auto rows = Tiling::of(visual.rows());
  const auto columns = Tiling::of(semantic.rows());
  const CrossSchedule schedule(rows.count(), columns.count());
  LogSumExps<T> replicas(schedule.replicas() * semantic.rows(), scaling);
  auto spaces = workspaces<T>();
  for_each_pair(schedule, [&](const TilePair& pair, int thread) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto& space = spaces[thread];
    const auto tile =
        space.multiply(rows_of(visual.values(), rows, pair.row), rows_of(semantic.values(), columns, pair.column));
    const auto class_sums = replicas.view(pair.replica * semantic.rows() + columns.begin(pair.column));
    add_tile(tile, scaling, over_classes.view(rows.begin(pair.row)), &class_sums, space.sums);
  });
  for (int64_t index = 0; index < schedule.replicas() * semantic.rows(); ++index) {
    over_instances.merge(index % semantic.rows(), replicas, index);
  }
}

// Per-anchor losses collected in the order of the anchors, then reduced.
template <typename T>
class AnchorLosses {
 public:
  explicit AnchorLosses(int64_t anchors, const at::TensorOptions& options)
      : values_(at::zeros({anchors}, options)), data_(values_.template mutable_data_ptr<T>()) {}

  void set(int64_t anchor, T value) {
    data_[anchor] = value;
  }
  Tensor reduced(Reduction reduction, int64_t valid_anchors) const {
    return mcfa_fast::reduced<T>(values_, reduction, valid_anchors);
  }

 private:
  Tensor values_;
  T* data_;
};

template <typename T>
Tensor in_input_order(const LogSumExps<T>& sums, const SortedLabels& labels, int64_t rows, const at::TensorOptions& options) {
  auto result = at::zeros({rows}, options);
  T* value = result.template mutable_data_ptr<T>();
  for (int64_t row = 0; row < labels.size(); ++row) {
    value[labels.order[row]] = sums.value(row);
  }
  return result;
}

template <typename T>
ContrastiveLosses forward(const ContrastiveInputs& inputs, const ContrastiveWanted& wanted) {
  const auto scaling = Scaling<T>::of(read_temperature(inputs.temperature, c10::CppTypeToScalarType<T>::value), inputs.normalize);
  const T scale = scaling.scale;
  const int64_t instances = inputs.instances();
  const int64_t classes = inputs.classes();
  const bool in_form = inputs.in_form();
  const auto reduction = inputs.reduction;
  const auto labels =
      sort_labels(inputs.labels, inputs.ignore_index, wanted.cross() ? std::optional(classes) : std::nullopt);
  const Latents<T> visual(inputs.visual, labels.order, inputs.normalize);
  const auto options = visual.values().options();
  ContrastiveLosses result;
  auto& sums = result.log_sum_exps;

  if (wanted.vtov) {
    LogSumExps<T> others(visual.rows(), scaling);
    LogSumExps<T> of_class(in_form ? visual.rows() : 0, scaling);
    sum_visual_pairs(visual, labels, scaling, others, in_form ? &of_class : nullptr);
    AnchorLosses<T> losses(instances, options);
    for_each_class(labels, [&](const ClassRun& run) {
      if (run.size() < 2) {
        return;
      }
      const T count = static_cast<T>(run.size() - 1);
      const auto sum = in_form ? std::vector<T>() : class_sum(visual, run);
      for (int64_t row = run.begin; row < run.end; ++row) {
        const T* v = visual.row(row);
        const T similarity = in_form
            ? of_class.value(row) - std::log(count)
            : scale * (dot_row(v, sum.data(), visual.columns()) - dot_row(v, v, visual.columns())) / count;
        losses.set(labels.order[row], others.value(row) - similarity);
      }
    });
    result.vtov = losses.reduced(reduction, instances_with_positive(labels));
    sums.vtov = in_input_order(others, labels, instances, options);
    if (in_form) {
      sums.positives = in_input_order(of_class, labels, instances, options);
    }
  }

  if (wanted.cross()) {
    const Latents<T> semantic(*inputs.semantic, inputs.normalize);
    LogSumExps<T> over_classes(visual.rows(), scaling);
    LogSumExps<T> over_instances(classes, scaling);
    sum_cross_pairs(visual, semantic, scaling, over_classes, over_instances);
    const auto products = own_class_products(visual, semantic, labels);
    if (wanted.vtos) {
      AnchorLosses<T> losses(instances, options);
      for (int64_t row = 0; row < visual.rows(); ++row) {
        losses.set(labels.order[row], over_classes.value(row) - scale * products[row]);
      }
      result.vtos = losses.reduced(reduction, visual.rows());
      sums.vtos = in_input_order(over_classes, labels, instances, options);
    }
    if (wanted.stov) {
      AnchorLosses<T> losses(classes, options);
      for (const auto& run : labels.runs) {
        const T count = static_cast<T>(run.size());
        const T similarity = in_form
            ? class_log_sum_exp(products, run, scale) - std::log(count)
            : scale * sum_row(products.data() + run.begin, run.size()) / count;
        losses.set(run.label, over_instances.value(run.label) - similarity);
      }
      result.stov = losses.reduced(reduction, static_cast<int64_t>(labels.runs.size()));
      sums.stov = at::empty({classes}, options);
      for (int64_t index = 0; index < classes; ++index) {
        sums.stov.template mutable_data_ptr<T>()[index] = over_instances.value(index);
      }
    }
  }
  // Those that were not asked for.
  for (auto* loss : {&result.vtov, &result.vtos, &result.stov}) {
    *loss = loss->defined() ? *loss : scalar_tensor<T>(0, options);
  }
  for (auto* sum : {&sums.vtov, &sums.positives, &sums.vtos, &sums.stov}) {
    *sum = sum->defined() ? *sum : at::empty({0}, options);
  }
  return result;
}

ContrastiveLosses contrastive_forward_cpu(const ContrastiveInputs& inputs, const ContrastiveWanted& wanted) {
  const bool in_double = accumulation_type(inputs.visual.scalar_type()) == at::kDouble;
  return (in_double ? forward<double> : forward<float>)(inputs, wanted);
}

MCFA_REGISTER_KERNEL(mcfa_fast, CPU, ContrastiveForward, contrastive_forward_cpu)

}  // namespace
}  // namespace mcfa_fast
