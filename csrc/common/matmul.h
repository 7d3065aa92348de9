// Matrix products on the CPU by the fastest of the libraries that come with PyTorch.
//
// PyTorch's own products of float32 go to MKL, which leaves AVX-512 unused on processors that are not Intel's; its
// oneDNN, reached through an operator that torch.compile generates calls of, takes about half the time there. Small
// products, other dtypes and builds without oneDNN go the usual way.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace mcfa_fast {

// a b for a [M, K] and b [K, N], either of them possibly a transposed view; the result is contiguous.
at::Tensor product(const at::Tensor& a, const at::Tensor& b);

// sum += a b.
void add_product_(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b);

// x W^T + bias for x [M, K], W [N, K] and bias [N]; its positive part with `relu`.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, bool relu);

}  // namespace mcfa_fast
