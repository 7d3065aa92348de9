// Training of the linear softmax classifier over latents, an epoch per call.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "../common/linear.h"

namespace mcfa_fast {

// Cross entropy, averaged over a batch, by Adam.
class SoftmaxTraining {
 public:
  // `weight` [K, D] and `bias` [K] on the CPU; they are updated in place.
  SoftmaxTraining(const at::Tensor& weight, const at::Tensor& bias, double learning_rate, double beta1, double beta2);

  // A step for every `batch_size` rows of `latents` [M, D] and `labels` [M] (0..K-1), in their order; the last may be
  // smaller.
  void epoch(const at::Tensor& latents, const at::Tensor& labels, int64_t batch_size);

 private:
  Linear layer_;
  double learning_rate_, beta1_, beta2_;
  std::vector<at::Tensor> parameters_, first_moments_, second_moments_, steps_;
};

}  // namespace mcfa_fast
