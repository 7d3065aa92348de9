// The backward pass over pairs on the GPU: which kernel takes them, and what becomes of the sums that it leaves.
#pragma once

#include <utility>
#include <vector>

#include "batch.cuh"

namespace mcfa_fast {

template <int kWidth, bool kPolynomial, typename T>
void launch_hopper_backward(const BackwardPairs<T>& pairs, dim3 grid) {
  check_hopper();
  launch(
      hopper_backward_kernel<T, kWidth, kPolynomial>, grid, HopperShape<kWidth>::kThreads, HopperShape<kWidth>::kShared,
      pairs);
}

template <int kWidth, typename T>
void launch_mma_backward(const BackwardPairs<T>& pairs, int64_t splits) {
  const dim3 grid(blocks_for(pairs.row_count, kMmaRows), static_cast<unsigned>(splits));
  if constexpr (kWidth <= 128) {
    const auto wish = hopper_kernels();
    if (wish != HopperKernels::kOff) {
      wish == HopperKernels::kOn ? launch_hopper_backward<kWidth, false>(pairs, grid)
                                 : launch_hopper_backward<kWidth, true>(pairs, grid);
      return;
    }
  }
  launch(
      mma_backward_kernel<T, kWidth>, grid, MmaShape<kWidth>::kThreads, MmaShape<kWidth>::kBackwardShared, pairs);
}

template <int kWidth, typename T>
void launch_simt_backward(const BackwardPairs<T>& pairs, int64_t splits) {
  const dim3 grid(
      blocks_for(pairs.row_count, kSimtTile), static_cast<unsigned>(splits), blocks_for(pairs.width, kWidth));
  launch(simt_backward_kernel<T, kWidth>, grid, kSimtThreads, simt_backward_shared<T, kWidth>(), pairs);
}

// grad [splits, rows, padded] (+)= the weights of the pairs times the columns.
template <typename T>
void launch_pairs(
    const BackwardPairs<T>& pairs, const DeviceLatents<T>& rows, const DeviceLatents<T>& columns, const at::Tensor& grad) {
  const int64_t splits = grad.size(0);
  if (by_library<T>(pairs.width)) {
    if (!pairs.accumulate) {
      grad.zero_();
    }
    const auto add_product = [&](int64_t first_row, const at::Tensor& weights, const at::Tensor& values) {
      grad.select(0, 0).narrow(0, first_row, weights.size(0)).add_(wide_product(weights, values, grad.scalar_type()));
    };
    for_each_block(rows, columns, pairs.same, [&](const auto& block) {
      const int64_t column_count = block.column_values.size(0);
      const int64_t stride = (column_count + 7) / 8 * 8;  // whole 16 bytes, which the library reads faster
      const auto weights = at::empty({block.row_values.size(0), stride}, rows.values.options()).narrow(1, 0, column_count);
      block.for_each_chunk([&](const auto& chunk) {
        launch(
            chunk_backward_kernel<T>, static_cast<unsigned>(chunk.row_count), kChunkThreads, 0, pairs, chunk,
            output_pointer<T>(weights) + (chunk.first_column - block.first_column), stride);
      });
      add_product(block.first_row, weights, block.column_values);
      if (block.mirrored) {
        add_product(block.first_column, weights.t(), block.row_values);
      }
    });
  } else if constexpr (kOnMatrixUnits<T>) {
    pairs.width == 64 ? launch_mma_backward<64>(pairs, splits)
        : pairs.width == 128 ? launch_mma_backward<128>(pairs, splits) : launch_mma_backward<256>(pairs, splits);
  } else if constexpr (std::is_same_v<T, float>) {
    pairs.width <= 64 ? launch_simt_backward<64>(pairs, splits)
        : pairs.width <= 128 ? launch_simt_backward<128>(pairs, splits) : launch_simt_backward<256>(pairs, splits);
  } else {
    launch_simt_backward<64>(pairs, splits);
  }
}

// Room for the sums of the rows, [splits, rows, padded].
template <typename T>
at::Tensor weighted_columns(const DeviceLatents<T>& rows, int64_t columns) {
  return at::empty(
      {split_count<T>(rows.rows(), columns, rows.padded()), rows.rows(), rows.padded()}, accumulating<T>(rows.values));
}

// Sums over the columns, each times the weight of its pair, in the pair kernels' scale, into that room.
template <typename T>
void add_weighted_columns(
    const PairsOnDevice<T>& of, const PairTerms<Accumulate<T>>& row_terms, const PairTerms<Accumulate<T>>& column_terms,
    const double* temperature, bool normalized, bool accumulate, const at::Tensor& grad) {
  const BackwardPairs<T> pairs{
      of.rows.pointer(),
      of.columns.pointer(),
      of.rows.rows(),
      of.columns.rows(),
      of.kept_rows,
      of.kept_columns,
      of.rows.padded(),
      temperature,
      normalized,
      of.same,
      of.selves,
      of.begin,
      of.end,
      row_terms,
      column_terms,
      accumulate,
      output_pointer<Accumulate<T>>(grad)};
  launch_pairs(pairs, of.rows, of.columns, grad);
}

// The arguments of pull_back_kernel.
template <typename T>
PullBack<T> pull_back_of(
    const DeviceLatents<T>& latents, const at::Tensor& sums, const double* temperature, bool normalized,
    const at::Tensor& boost, const at::Tensor& along, const at::Tensor& grad_input) {
  using A = Accumulate<T>;
  return {
      input_pointer<T>(latents.input),
      input_pointer<A>(latents.inverse_norms),
      latents.rows(),
      latents.input.size(1),
      latents.padded(),
      temperature,
      normalized,
      input_pointer<A>(boost),
      output_pointer<A>(sums),
      sums.size(0),
      output_pointer<A>(along),
      output_pointer<T>(grad_input)};
}

// float16 has few exponents: for it the pair kernels' weights are brought near its upper end and back again.
inline at::Tensor boost_for(
    const std::vector<std::pair<at::Tensor, at::Tensor>>& grads_and_divisors, const at::TensorOptions& options) {
  constexpr double kTarget = 8192;  // a weight is at most four times the largest gradient
  auto largest = at::zeros({}, options);
  for (const auto& [grad, divisor] : grads_and_divisors) {
    if (grad.defined() && grad.numel() > 0) {
      largest = at::maximum(largest, grad.abs().amax() / (divisor.defined() ? divisor.clamp_min(1) : at::ones_like(largest)));
    }
  }
  return at::where(largest > 0, kTarget / largest, at::ones_like(largest));
}

}  // namespace mcfa_fast
