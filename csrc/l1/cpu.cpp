// The gathered L1 distance on the CPU, one pass over memory in either direction. The gradient of a class is added up
// over its rows in their order, so that results do not depend on the threads.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "../common/labels.h"
#include "../common/reduce.h"
#include "../common/simd.h"
#include "../common/tasks.h"
#include "op.h"

namespace mcfa_fast {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

namespace loops {

template <typename T>
MCFA_INLINE T distance_row(const T* a, const T* b, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t f = 0; f < n; ++f) {
    sum += std::abs(a[f] - b[f]);
  }
  return sum;
}

// As PyTorch has it, the slope of |x| is 0 at 0 and at NaN.
template <typename T>
MCFA_INLINE T slope(T grad, T difference) {
  return difference > 0 ? grad : difference < 0 ? -grad : T(0);
}

template <typename T>
MCFA_INLINE void grad_row(T grad, const T* a, const T* b, int64_t n, T* grad_a) {
#pragma omp simd
  for (int64_t f = 0; f < n; ++f) {
    grad_a[f] = slope(grad, a[f] - b[f]);
  }
}

template <typename T>
MCFA_INLINE void add_grad_row(T grad, const T* a, const T* b, int64_t n, T* grad_a) {
#pragma omp simd
  for (int64_t f = 0; f < n; ++f) {
    grad_a[f] += slope(grad, a[f] - b[f]);
  }
}

}  // namespace loops

#define MCFA_INSTANTIATE_ROWS(T)                                                                    \
  MCFA_SIMD_CLONES T distance_row(const T* a, const T* b, int64_t n) {                              \
    return loops::distance_row(a, b, n);                                                            \
  }                                                                                                 \
  MCFA_SIMD_CLONES void grad_row(T grad, const T* a, const T* b, int64_t n, T* grad_a) {            \
    loops::grad_row(grad, a, b, n, grad_a);                                                         \
  }                                                                                                 \
  MCFA_SIMD_CLONES void add_grad_row(T grad, const T* a, const T* b, int64_t n, T* grad_a) {        \
    loops::add_grad_row(grad, a, b, n, grad_a);                                                     \
  }

MCFA_INSTANTIATE_ROWS(float)
MCFA_INSTANTIATE_ROWS(double)

// The inputs in the accumulation dtype, and which row of the table each instance is compared with.
template <typename T>
class Problem {
 public:
  Problem(const Tensor& instances, const Tensor& table, const OptionalTensor& labels)
      : instances_(accumulating(instances)), table_(accumulating(table)) {
    if (labels) {
      labels_ = checked_labels(*labels, classes());
    }
  }

  int64_t rows() const {
    return instances_.size(0);
  }
  int64_t classes() const {
    return table_.size(0);
  }
  int64_t width() const {
    return instances_.size(1);
  }
  at::TensorOptions options() const {
    return instances_.options();
  }
  int64_t row_of_table(int64_t row) const {
    return labels_.defined() ? labels_.const_data_ptr<int64_t>()[row] : row;
  }
  const T* instance(int64_t row) const {
    return instances_.template const_data_ptr<T>() + row * width();
  }
  const T* table(int64_t row) const {
    return table_.template const_data_ptr<T>() + row * width();
  }

 private:
  static Tensor accumulating(const Tensor& tensor) {
    return tensor.to(c10::CppTypeToScalarType<T>::value).contiguous();
  }

  Tensor instances_;
  Tensor table_;
  Tensor labels_;
};

// The gradient of one of the inputs, if it is wanted.
template <typename T>
class Gradient {
 public:
  Gradient() = default;
  explicit Gradient(Tensor values)
      : values_(std::move(values)), data_(values_.template mutable_data_ptr<T>()), width_(values_.size(1)) {}

  bool wanted() const {
    return values_.defined();
  }
  T* row(int64_t index) const {
    return data_ + index * width_;
  }
  Tensor as(at::ScalarType type) const {
    return wanted() ? values_.to(type) : Tensor();
  }

 private:
  Tensor values_;
  T* data_ = nullptr;
  int64_t width_ = 0;
};

template <typename T>
Tensor forward(
    const Tensor& instances, const Tensor& table, const OptionalTensor& labels, Reduction reduction) {
  const Problem<T> problem(instances, table, labels);
  auto result = at::empty({problem.rows()}, problem.options());
  T* distance = result.template mutable_data_ptr<T>();
  at::parallel_for(0, problem.rows(), rows_per_task(problem.width()), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      distance[row] =
          distance_row(problem.instance(row), problem.table(problem.row_of_table(row)), problem.width());
    }
  });
  return reduced<T>(result, reduction, problem.rows());
}

// Every instance by itself: all gradients but those that a class collects from its instances.
template <typename T>
void differentiate_rows(
    const Problem<T>& problem, const RowGrads<T>& grad, const Gradient<T>& grad_instances,
    const Gradient<T>& grad_table) {
  const int64_t width = problem.width();
  at::parallel_for(0, problem.rows(), rows_per_task(width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* instance = problem.instance(row);
      const T* other = problem.table(problem.row_of_table(row));
      if (grad_instances.wanted()) {
        grad_row(grad[row], instance, other, width, grad_instances.row(row));
      }
      if (grad_table.wanted()) {
        grad_row(grad[row], other, instance, width, grad_table.row(row));
      }
    }
  });
}

// Class after class, so that each row of the table's gradient is added up by one task: a class, or some of its columns
// where there are fewer classes than work for the threads. Sums of kRowsPerSum rows are added up in turn, which keeps
// rounding errors small in classes of many rows.
template <typename T>
void differentiate_classes(
    const Problem<T>& problem, const SortedLabels& labels, const RowGrads<T>& grad,
    const Gradient<T>& grad_instances, const Gradient<T>& grad_table) {
  constexpr int64_t kFewestColumns = 64;
  constexpr int64_t kTasksPerThread = 4;
  constexpr int64_t kRowsPerSum = 64;
  const int64_t width = problem.width();
  const int64_t classes = static_cast<int64_t>(labels.runs.size());
  const int64_t columns =
      std::max(at::divup(classes * width, kTasksPerThread * at::get_num_threads()), kFewestColumns);
  const int64_t parts = at::divup(width, columns);
  const int64_t tasks = classes * parts;
  const int64_t elements = std::max<int64_t>(problem.rows() * width, 1);
  const int64_t grain = std::max<int64_t>(tasks * at::internal::GRAIN_SIZE / elements, 1);
  at::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    std::vector<T> partial(std::min(columns, width));
    for (int64_t task = begin; task < end; ++task) {
      const ClassRun& run = labels.runs[task / parts];
      const int64_t first = task % parts * columns;
      const int64_t size = std::min(columns, width - first);
      const T* other = problem.table(run.label) + first;
      T* sums = grad_table.row(run.label) + first;
      for (int64_t position = run.begin; position < run.end; ++position) {
        const int64_t row = labels.order[position];
        const T* instance = problem.instance(row) + first;
        if (grad_instances.wanted()) {
          grad_row(grad[row], instance, other, size, grad_instances.row(row) + first);
        }
        const bool first_sum = position < run.begin + kRowsPerSum;
        add_grad_row(grad[row], other, instance, size, first_sum ? sums : partial.data());
        const int64_t done = position + 1 - run.begin;
        if (!first_sum && (done % kRowsPerSum == 0 || position + 1 == run.end)) {
          for (int64_t f = 0; f < size; ++f) {
            sums[f] += std::exchange(partial[f], T(0));
          }
        }
      }
    }
  });
}

template <typename T>
L1Backward::Result backward(
    const Tensor& grad_loss, const Tensor& instances, const Tensor& table, const OptionalTensor& labels,
    Reduction reduction, L1Backward::Mask mask) {
  const Problem<T> problem(instances, table, labels);
  const RowGrads<T> grad(grad_loss, reduction, problem.rows());
  const auto shape = [&](int64_t rows) { return std::array{rows, problem.width()}; };
  Gradient<T> grad_instances;
  Gradient<T> grad_table;
  if (mask[0]) {
    grad_instances = Gradient<T>(at::empty(shape(problem.rows()), problem.options()));
  }
  if (labels && mask[1]) {
    grad_table = Gradient<T>(at::zeros(shape(problem.classes()), problem.options()));
    const auto sorted = sort_labels(*labels, std::nullopt, problem.classes());
    differentiate_classes(problem, sorted, grad, grad_instances, grad_table);
  } else {
    if (mask[1]) {
      grad_table = Gradient<T>(at::empty(shape(problem.rows()), problem.options()));
    }
    differentiate_rows(problem, grad, grad_instances, grad_table);
  }
  return {grad_instances.as(instances.scalar_type()), grad_table.as(table.scalar_type())};
}

Tensor l1_forward_cpu(
    const Tensor& instances, const Tensor& table, const OptionalTensor& labels, std::string_view reduction) {
  const bool in_double = accumulation_type(instances.scalar_type()) == at::kDouble;
  return (in_double ? forward<double> : forward<float>)(instances, table, labels, parse_reduction(reduction));
}

L1Backward::Result l1_backward_cpu(
    const Tensor& grad_loss, const Tensor& instances, const Tensor& table, const OptionalTensor& labels,
    std::string_view reduction, L1Backward::Mask mask) {
  const bool in_double = accumulation_type(instances.scalar_type()) == at::kDouble;
  return (in_double ? backward<double> : backward<float>)(
      grad_loss, instances, table, labels, parse_reduction(reduction), mask);
}

MCFA_REGISTER_KERNEL(mcfa_fast, CPU, L1Forward, l1_forward_cpu)
MCFA_REGISTER_KERNEL(mcfa_fast, CPU, L1Backward, l1_backward_cpu)

}  // namespace
}  // namespace mcfa_fast
