// Labels ordered so that every class is one contiguous run of rows: sums over a class then need neither
// masks nor atomics, and come out the same every time.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "checks.h"

namespace mcfa_fast {

// A copy of the labels as contiguous int64: what has been checked must stay, whoever writes to the caller's memory.
inline at::Tensor own_labels(const at::Tensor& labels) {
  return labels.to(at::kLong, /*non_blocking=*/false, /*copy=*/true).contiguous();
}

// The same; raises ValueError for a label outside [0, classes).
inline at::Tensor checked_labels(const at::Tensor& labels, int64_t classes) {
  auto values = own_labels(labels);
  const int64_t* label = values.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < values.size(0); ++i) {
    if (label[i] < 0 || label[i] >= classes) {
      throw_label_out_of_range(label[i], i, classes);
    }
  }
  return values;
}

struct ClassRun {
  int64_t label;
  int64_t begin;
  int64_t end;

  int64_t size() const {
    return end - begin;
  }
};

struct SortedLabels {
  std::vector<int64_t> order;   // sorted row -> row of the input
  std::vector<ClassRun> runs;   // ascending labels
  std::vector<int64_t> run_of;  // sorted row -> index in runs

  int64_t size() const {
    return static_cast<int64_t>(order.size());
  }
  const ClassRun& run(int64_t row) const {
    return runs[run_of[row]];
  }
};

// Leaves out instances labelled `ignore_index`; raises ValueError for another label outside [0, classes) if
// the number of classes is given.
inline SortedLabels sort_labels(
    const at::Tensor& labels, std::optional<int64_t> ignore_index, std::optional<int64_t> classes) {
  const auto values = own_labels(labels);
  const int64_t* label = values.const_data_ptr<int64_t>();
  SortedLabels sorted;
  sorted.order.reserve(values.size(0));
  for (int64_t i = 0; i < values.size(0); ++i) {
    if (label[i] == ignore_index) {
      continue;
    }
    if (classes && (label[i] < 0 || label[i] >= *classes)) {
      throw_label_out_of_range(label[i], i, *classes);
    }
    sorted.order.push_back(i);
  }
  std::stable_sort(
      sorted.order.begin(), sorted.order.end(), [label](int64_t a, int64_t b) { return label[a] < label[b]; });
  sorted.run_of.resize(sorted.order.size());
  for (int64_t row = 0; row < sorted.size(); ++row) {
    const int64_t value = label[sorted.order[row]];
    if (sorted.runs.empty() || sorted.runs.back().label != value) {
      sorted.runs.push_back({value, row, row});
    }
    sorted.runs.back().end = row + 1;
    sorted.run_of[row] = static_cast<int64_t>(sorted.runs.size()) - 1;
  }
  return sorted;
}

// Runs visit(run) for every class, in parallel.
template <typename Visit>
void for_each_class(const SortedLabels& labels, const Visit& visit) {
  at::parallel_for(0, static_cast<int64_t>(labels.runs.size()), 16, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      visit(labels.runs[index]);
    }
  });
}

}  // namespace mcfa_fast
