// What the forward and the backward pass on the GPU share: the prepared batch, and which kernels take which pairs.
#pragma once

#include <ATen/Context.h>

#include <algorithm>
#include <type_traits>

#include "../../common/sorted_labels.cuh"
#include "kernels.cuh"
#include "../op.h"

namespace mcfa_fast {

template <typename T>
constexpr bool kOnMatrixUnits = sizeof(T) == 2;

constexpr int64_t kWidestFused = 256;

// Whether PyTorch lets float32 products use the matrix units, by whichever of its settings.
inline bool allows_tf32() {
  return at::globalContext().float32Precision(at::Float32Backend::CUDA, at::Float32Op::MATMUL) ==
      at::Float32Precision::TF32;
}

// Whether latents go through a library's products (chunks.cuh): those that are too wide for the fused kernels (on some
// GPUs, for their shared memory), and float32 latents that are not narrow where PyTorch's float32 matmul precision lets
// the library use the matrix units.
template <typename T>
bool by_library(int64_t width) {
  constexpr int64_t kNarrow = 64;
  return width > kWidestFused ||
      (kOnMatrixUnits<T> && width > 128 && shared_memory_limit() < MmaShape<256>::kBackwardShared) ||
      (std::is_same_v<T, float> && width > kNarrow && allows_tf32());
}

// The width that the kernels want latents padded to.
template <typename T>
int64_t padded_width(int64_t width) {
  if (!kOnMatrixUnits<T>) {
    return width;
  }
  return width <= 64 ? 64 : width <= 128 ? 128 : width <= kWidestFused ? kWidestFused : (width + 7) / 8 * 8;
}

// How many parts the columns are split into so that few rows still fill a GPU, each of several tiles; of the sizes alone,
// so that results do not depend on the GPU.
template <typename T>
int64_t split_count(int64_t rows, int64_t columns, int64_t width) {
  constexpr int64_t kBlocks = 512;
  const int64_t tiles = std::max<int64_t>((columns + 63) / 64, 1);
  const int64_t blocks = std::max<int64_t>((rows + kMmaRows - 1) / kMmaRows, 1);
  return by_library<T>(width) ? 1 : std::clamp<int64_t>(kBlocks / blocks, 1, std::min<int64_t>((tiles + 3) / 4, 64));
}

// A temperature where the kernels can read it. One on the GPU is never waited for: if it is not positive and finite,
// the results are NaN.
inline at::Tensor temperature_on_device(const at::Tensor& temperature, const at::Tensor& like) {
  if (temperature.is_cpu()) {
    return at::full({}, read_temperature(temperature, accumulation_type(like.scalar_type())), like.options().dtype(at::kDouble));
  }
  return temperature.to(at::kDouble);
}

// Latents as the kernels want them; see latents_kernel.
template <typename T>
struct DeviceLatents {
  at::Tensor input;
  at::Tensor values;  // [rows, padded]
  at::Tensor inverse_norms;

  DeviceLatents() = default;
  DeviceLatents(const at::Tensor& input_tensor, const SortedLabelsOnDevice* sorted, bool normalize)
      : input(input_tensor.contiguous()),
        values(at::empty({input.size(0), padded_width<T>(input.size(1))}, input.options())),
        inverse_norms(at::empty({input.size(0)}, accumulating<T>(input))) {
    launch(
        latents_kernel<T>, blocks_for(rows() * 32, kRowThreads), kRowThreads, 0, input_pointer<T>(input),
        sorted == nullptr ? nullptr : input_pointer<int64_t>(sorted->order), sorted == nullptr ? nullptr : sorted->kept(),
        rows(), input.size(1), padded(), normalize, output_pointer<T>(values),
        output_pointer<Accumulate<T>>(inverse_norms));
  }

  int64_t rows() const {
    return values.size(0);
  }
  int64_t padded() const {
    return values.size(1);
  }
  const T* pointer() const {
    return input_pointer<T>(values);
  }
};

// Sums of latents over the classes, each in the row where the class begins.
template <typename T>
at::Tensor class_sums(const DeviceLatents<T>& visual, const SortedLabelsOnDevice& labels) {
  using A = Accumulate<T>;
  const auto options = accumulating<T>(visual.values);
  const unsigned chunks = blocks_for(visual.rows(), kRowsPerChunk);
  const auto sums = at::empty({visual.rows(), visual.padded()}, options);
  const auto heads = at::empty({chunks, visual.padded()}, options);
  const int threads = static_cast<int>(std::clamp<int64_t>((visual.padded() + 31) / 32 * 32, 32, 256));
  launch(
      class_sums_kernel<T>, chunks, threads, 0, visual.pointer(),
      input_pointer<int64_t>(labels.begin), labels.kept(), visual.padded(), output_pointer<A>(sums),
      output_pointer<A>(heads));
  launch(
      class_heads_kernel<A>, chunks, threads, 0, input_pointer<A>(heads), input_pointer<int64_t>(labels.begin),
      input_pointer<int64_t>(labels.end), labels.kept(), visual.padded(), output_pointer<A>(sums));
  return sums;
}

// Each instance's product with its own class [N], and their mean or log-sum-exp over each class [C].
template <typename T>
struct OwnProducts {
  at::Tensor products;
  at::Tensor of_classes;

  OwnProducts() = default;
  OwnProducts(
      const DeviceLatents<T>& visual, const DeviceLatents<T>& semantic, const SortedLabelsOnDevice& labels, bool in_form,
      const at::Tensor& temperature)
      : products(at::empty({visual.rows()}, accumulating<T>(visual.values))),
        of_classes(at::empty({semantic.rows()}, accumulating<T>(visual.values))) {
    using A = Accumulate<T>;
    launch(
        own_products_kernel<T>, blocks_for(visual.rows() * 32, kRowThreads), kRowThreads, 0, visual.pointer(),
        semantic.pointer(), input_pointer<int64_t>(labels.keys), labels.kept(), visual.padded(),
        output_pointer<A>(products));
    launch(
        class_products_kernel<A>, static_cast<unsigned>(semantic.rows()), kRowThreads, kRowThreads / 32 * sizeof(A),
        input_pointer<A>(products), input_pointer<int64_t>(labels.class_begin), input_pointer<int64_t>(labels.class_end),
        in_form, input_pointer<double>(temperature), output_pointer<A>(of_classes));
  }
};

// A square of pairs of two sets of latents. One right of the diagonal of one set with itself is `mirrored`: it serves its
// columns, too.
template <typename T>
struct PairBlock {
  at::Tensor row_values;
  at::Tensor column_values;
  int64_t first_row;
  int64_t first_column;
  bool mirrored;

  // Visits its products in chunks of columns.
  template <typename Visit>
  void for_each_chunk(const Visit& visit) const {
    const auto type = c10::CppTypeToScalarType<Accumulate<T>>::value;
    for (int64_t column = 0; column < column_values.size(0); column += chunk_columns()) {
      const auto values = column_values.narrow(0, column, std::min(chunk_columns(), column_values.size(0) - column));
      const auto products = wide_product(row_values, values.t(), type);
      visit(Chunk<Accumulate<T>>{
          output_pointer<Accumulate<T>>(products), first_row, first_column + column, row_values.size(0), values.size(0)});
    }
  }
};

// Rows and columns whose pairs are summed over.
template <typename T>
struct PairsOnDevice {
  const DeviceLatents<T>& rows;
  const DeviceLatents<T>& columns;
  bool same;                    // they are one set, and a row is no column of itself
  const int64_t* kept_rows;     // null: all
  const int64_t* kept_columns;  // null: all
  const int64_t* begin;         // each row's positives among the columns, null if not wanted
  const int64_t* end;
  SelfPairs selves = {};
};

// Visits the pairs of two sets of latents block by block. Where both are the same set, blocks left of the diagonal are
// left out; on the diagonal pairs appear both ways.
template <typename T, typename Visit>
void for_each_block(const DeviceLatents<T>& rows, const DeviceLatents<T>& columns, bool same, const Visit& visit) {
  for (int64_t row = 0; row < rows.rows(); row += block_size()) {
    const auto row_values = rows.values.narrow(0, row, std::min(block_size(), rows.rows() - row));
    for (int64_t column = same ? row : 0; column < columns.rows(); column += block_size()) {
      const auto column_values = columns.values.narrow(0, column, std::min(block_size(), columns.rows() - column));
      visit(PairBlock<T>{row_values, column_values, row, column, same && column > row});
    }
  }
}

}  // namespace mcfa_fast
