#include "training.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "../common/labels.h"

namespace mcfa_fast {

using at::Tensor;

SoftmaxTraining::SoftmaxTraining(
    const Tensor& weight, const Tensor& bias, double learning_rate, double beta1, double beta2)
    : layer_(weight, bias), learning_rate_(learning_rate), beta1_(beta1), beta2_(beta2) {
  for (const auto& parameter : {weight, bias}) {
    parameters_.push_back(parameter);
    first_moments_.push_back(at::zeros_like(parameter.detach()));
    second_moments_.push_back(at::zeros_like(parameter.detach()));
    steps_.push_back(at::zeros({}, parameter.options().dtype(at::kFloat).requires_grad(false)));
  }
}

void SoftmaxTraining::epoch(const Tensor& latents, const Tensor& labels, int64_t batch_size) {
  const Tensor& weight = parameters_[0];
  check_matrix(latents, "latents", "[M, D]");
  check_same_dtype(latents, "latents", weight, "weight");
  check_labels(labels, latents, "latents");
  TORCH_CHECK_VALUE(batch_size > 0, "expected `batch_size` of 1 or more, but got ", batch_size);
  const int64_t classes = weight.size(0);
  const Tensor columns = checked_labels(labels, classes);
  at::AutoDispatchBelowADInplaceOrView no_autograd;
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
  for (int64_t begin = 0; begin < latents.size(0); begin += batch_size) {
    const int64_t rows = std::min(batch_size, latents.size(0) - begin);
    const Tensor batch = latents.narrow(0, begin, rows);
    // The gradient of the mean cross entropy: probabilities less the one that should be 1.
    Tensor grad = at::softmax(layer_.forward(batch), 1);
    const Tensor targets = columns.narrow(0, begin, rows).unsqueeze(1);
    grad.scatter_add_(1, targets, at::full({rows, 1}, -1.0, grad.options()));
    grad.div_(static_cast<double>(rows));
    layer_.backward(grad, batch);
    for (const auto& step : steps_) {
      step.add_(1);
    }
    at::_fused_adam_(
        parameters_, {parameters_[0].grad(), parameters_[1].grad()}, first_moments_, second_moments_, /*max_exp_avg_sqs=*/{}, steps_, learning_rate_,
        beta1_, beta2_, /*weight_decay=*/0.0, /*eps=*/1e-8, /*amsgrad=*/false, /*maximize=*/false);
  }
}

}  // namespace mcfa_fast
