#include "step.h"

#include <ATen/ATen.h>

#include <utility>

#include "../common/labels.h"
#include "../contrastive/op.h"
#include "../wasserstein/op.h"
#include "terms.h"

namespace mcfa_fast {

using at::Tensor;

namespace {

// Layers of one VAE are 10 tensors: three of the encoder's, two of the decoder's, weight and bias each.
constexpr size_t kPerEncoder = 6;
constexpr size_t kPerVAE = 10;

std::vector<Tensor> part(const std::vector<Tensor>& parameters, size_t begin, size_t end) {
  TORCH_CHECK_VALUE(
      parameters.size() == 2 * kPerVAE, "expected ", 2 * kPerVAE, " `parameters`, but got ", parameters.size());
  return {parameters.begin() + begin, parameters.begin() + end};
}

void check_batch(const Tensor& tensor, const char* name, const at::TensorOptions& type) {
  check_matrix(tensor, name, "[rows, features]");
  TORCH_CHECK_TYPE(
      tensor.scalar_type() == type.dtype().toScalarType(), "expected `", name, "` to have the parameters' dtype, ",
      type.dtype().toScalarType(), ", but got ", tensor.scalar_type());
  TORCH_CHECK_VALUE(tensor.is_cpu(), "expected `", name, "` on the CPU, but got ", tensor.device());
  TORCH_CHECK_VALUE(tensor.is_contiguous(), "expected `", name, "` to be contiguous");
}

}  // namespace

MCFAStep::MCFAStep(const std::vector<Tensor>& parameters, MCFAStepOptions options)
    : options_(std::move(options)),
      type_(parameters.at(0).options().requires_grad(false)),
      visual_encoder_(part(parameters, 0, kPerEncoder)),
      visual_decoder_(part(parameters, kPerEncoder, kPerVAE)),
      semantic_encoder_(part(parameters, kPerVAE, kPerVAE + kPerEncoder)),
      semantic_decoder_(part(parameters, kPerVAE + kPerEncoder, 2 * kPerVAE)),
      temperature_(at::full({}, options_.temperature, at::kDouble)) {}

Tensor MCFAStep::run(
    const Tensor& features, const Tensor& semantics, const Tensor& any_labels, const MCFALossWeights& weights,
    const at::Generator& generator) {
  check_batch(features, "features", type_);
  check_batch(semantics, "semantics", type_);
  check_labels(any_labels, features, "features");
  const Tensor labels = checked_labels(any_labels, semantics.size(0));
  at::AutoDispatchBelowADInplaceOrView no_autograd;
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
  const int64_t instances = features.size(0);
  const int64_t classes = semantics.size(0);
  const int64_t all = instances + classes;
  const double power = options_.scale_power;
  const Tensor class_weights = count_classes(labels, classes);

  const auto [visual_mean, visual_logvar] = visual_encoder_.forward(features);
  const auto [semantic_mean, semantic_logvar] = semantic_encoder_.forward(semantics);
  const int64_t width = visual_mean.size(1);
  const Tensor visual_noise = draw_noise(instances, generator);
  const Tensor semantic_noise = draw_noise(classes, generator);
  // Instances first, then classes: both pass each decoder together.
  const Tensor latents = at::empty({all, width}, type_);
  const Tensor visual = latents.narrow(0, 0, instances);
  const Tensor semantic = latents.narrow(0, instances, classes);
  sample_latents(visual_mean, visual_logvar, visual_noise, power, visual);
  sample_latents(semantic_mean, semantic_logvar, semantic_noise, power, semantic);

  const auto scalar = [&](double value) { return at::full({}, value, type_); };
  const ContrastiveInputs inputs{
      visual,          semantic, labels, temperature_, options_.positives, Reduction::kSum,
      /*normalize=*/true, /*ignore_index=*/-100};
  const auto contrastive = contrastive_forward(inputs, {true, true, true});
  const auto contrastive_grads = contrastive_backward(
      inputs, {scalar(weights.vtov), scalar(weights.vtos), scalar(weights.stov)}, contrastive.log_sum_exps);
  const Tensor grad_latents = at::cat({contrastive_grads.visual, contrastive_grads.semantic});

  const Tensor& decoded_visual = visual_decoder_.forward(latents);
  const auto visual_error = visual_reconstruction_(
      decoded_visual, features, labels, weights.reconstruction, weights.cross_reconstruction);
  visual_decoder_.backward(decoded_visual, latents, grad_latents);
  const Tensor& decoded_semantic = semantic_decoder_.forward(latents);
  const auto semantic_error = semantic_reconstruction_(
      decoded_semantic, semantics, labels, class_weights, weights.reconstruction, weights.cross_reconstruction);
  semantic_decoder_.backward(decoded_semantic, latents, grad_latents);

  const auto [alignment, distance] = Kernels<WassersteinForward>::call(
      visual_mean, visual_logvar, semantic_mean, semantic_logvar, labels, "sum");
  const auto [grad_visual_mean, grad_visual_logvar, grad_semantic_mean, grad_semantic_logvar] =
      Kernels<WassersteinBackward>::call(
          scalar(weights.alignment), distance, visual_mean, visual_logvar, semantic_mean, semantic_logvar, labels,
          "sum");
  const double kl = latent_gradients_(
                        visual_mean, visual_logvar, visual_noise, power, grad_latents.narrow(0, 0, instances),
                        Tensor(), weights.kl, grad_visual_mean, grad_visual_logvar) +
                    latent_gradients_(
                        semantic_mean, semantic_logvar, semantic_noise, power,
                        grad_latents.narrow(0, instances, classes), class_weights, weights.kl,
                        grad_semantic_mean, grad_semantic_logvar);
  visual_encoder_.backward(grad_visual_mean, grad_visual_logvar, features);
  semantic_encoder_.backward(grad_semantic_mean, grad_semantic_logvar, semantics);

  const double reconstruction = visual_error.own + semantic_error.own;
  const double cross = visual_error.cross + semantic_error.cross;
  const double aligned = alignment.item<double>();
  const double vtov = contrastive.vtov.item<double>();
  const double vtos = contrastive.vtos.item<double>();
  const double stov = contrastive.stov.item<double>();
  const double total = weights.reconstruction * reconstruction + weights.kl * kl +
      weights.cross_reconstruction * cross + weights.alignment * aligned + weights.vtov * vtov + weights.vtos * vtos +
      weights.stov * stov;
  return at::tensor({total, reconstruction, kl, cross, aligned, vtov, vtos, stov}, at::kDouble);
}

Tensor MCFAStep::draw_noise(int64_t rows, const at::Generator& generator) const {
  const int64_t columns = options_.noise_per_row ? 1 : visual_encoder_.latent_features();
  return at::randn({rows, columns}, generator, type_);
}

// How often the own terms of each class count [C].
Tensor MCFAStep::count_classes(const Tensor& labels, int64_t classes) const {
  std::vector<int64_t> counts(classes, 0);
  const int64_t* label = labels.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < labels.size(0); ++i) {
    counts[label[i]] = options_.count_instances ? counts[label[i]] + 1 : 1;
  }
  return at::tensor(counts, type_.dtype(at::kLong)).to(type_.dtype());
}

}  // namespace mcfa_fast
