// A linear layer with its gradients, for training loops on the CPU without autograd. The tensor that forward() returns is
// valid until its next call; the parameters' gradients are set, not added to.
#pragma once

#include <ATen/core/Tensor.h>

namespace mcfa_fast {

// y = x W^T + b.
class Linear {
 public:
  Linear(const at::Tensor& weight, const at::Tensor& bias);

  // [rows, outputs]; its positive part with `relu`.
  const at::Tensor& forward(const at::Tensor& input, bool relu = false);

  // The gradients of the parameters, given that of the output [rows, outputs] for `input`.
  void backward(const at::Tensor& grad, const at::Tensor& input);

  // The gradient of the input [rows, inputs].
  at::Tensor backward_input(const at::Tensor& grad) const;

  // The same, added to `sum`.
  void add_backward_input(const at::Tensor& grad, const at::Tensor& sum) const;

  const at::Tensor& output() const {
    return output_;
  }
  int64_t outputs() const {
    return weight_.size(0);
  }

 private:
  at::Tensor weight_, bias_, output_;
};

}  // namespace mcfa_fast
