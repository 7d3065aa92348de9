// A batch's labels sorted on the device; see labels.cuh.
#pragma once

#include <optional>

#include "labels.cuh"
#include "launch.cuh"

namespace mcfa_fast {

struct SortedLabelsOnDevice {
  at::Tensor keys;    // [N] sorted; labels, except for those ignored, which come last
  at::Tensor order;   // [N] sorted row -> row of the input
  at::Tensor begin;   // [N] the run of rows with the row's label
  at::Tensor end;
  at::Tensor counts;  // kept rows; those with another of their label; classes present
  at::Tensor class_begin;  // [C] the run of rows of a class
  at::Tensor class_end;

  const int64_t* kept() const {
    return counts.const_data_ptr<int64_t>();
  }
  const int64_t* paired() const {
    return kept() + 1;
  }
  const int64_t* present() const {
    return kept() + 2;
  }

  // `check`: every label that is not ignored must be one of the classes, or the device asserts.
  static SortedLabelsOnDevice of(
      const at::Tensor& labels, std::optional<int64_t> ignore_index, int64_t classes, bool check) {
    constexpr int kThreads = 256;
    const auto values = labels.to(at::kLong).contiguous();
    const int64_t size = values.size(0);
    const bool ignoring = ignore_index.has_value();
    const int64_t ignored = ignore_index.value_or(0);
    const auto like = [&](int64_t length) { return at::empty({length}, values.options()); };
    SortedLabelsOnDevice sorted;
    sorted.counts = at::zeros({3}, values.options());
    sorted.begin = like(size);
    sorted.end = like(size);
    sorted.class_begin = like(classes);
    sorted.class_end = like(classes);
    const auto unsorted = like(size);
    launch(
        label_keys_kernel, blocks_for(size, kThreads), kThreads, 0, values.const_data_ptr<int64_t>(), size, ignoring,
        ignored, check ? classes : int64_t(-1), unsorted.mutable_data_ptr<int64_t>());
    std::tie(sorted.keys, sorted.order) = at::sort(unsorted, /*stable=*/true, /*dim=*/0, /*descending=*/false);
    const int64_t* keys = sorted.keys.const_data_ptr<int64_t>();
    int64_t* counts = sorted.counts.mutable_data_ptr<int64_t>();
    launch(
        class_runs_kernel, blocks_for(size, kThreads), kThreads, 0, keys, size, ignoring,
        sorted.begin.mutable_data_ptr<int64_t>(), sorted.end.mutable_data_ptr<int64_t>(), counts);
    launch(
        class_ranges_kernel, blocks_for(classes, kThreads), kThreads, 0, keys, size, ignoring, ignored, classes,
        sorted.class_begin.mutable_data_ptr<int64_t>(), sorted.class_end.mutable_data_ptr<int64_t>(), counts + 2);
    return sorted;
  }
};

}  // namespace mcfa_fast
