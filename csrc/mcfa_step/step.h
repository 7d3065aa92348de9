// Forward and backward of one training step of MCFA on the CPU, in one call: what autograd computes of
// mcfa_fast.models.MCFA and MCFALoss, without a graph of operations.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <vector>

#include "../contrastive/op.h"
#include "layers.h"

namespace mcfa_fast {

// What each term counts in the total (Eq. 7).
struct MCFALossWeights {
  double reconstruction;
  double kl;
  double cross_reconstruction;
  double alignment;
  double vtov;
  double vtos;
  double stov;
};

struct MCFAStepOptions {
  double temperature;
  Positives positives;
  double scale_power;     // sigma = exp(scale_power logvar)
  bool noise_per_row;     // one noise value per row, or one per element
  bool count_instances;   // a class's own terms count once per instance, or once per class present
};

class MCFAStep {
 public:
  // Weight and bias of every layer, in the order of MCFA.parameters(), on the CPU. Each step sets their `.grad`.
  MCFAStep(const std::vector<at::Tensor>& parameters, MCFAStepOptions options);

  // Losses [8], float64 in the order of MCFALosses, of the batch of `features` [N, F], class descriptors `semantics`
  // [C, A] and `labels` [N], the row of `semantics` of each instance. Noise is drawn from `generator`.
  at::Tensor run(
      const at::Tensor& features, const at::Tensor& semantics, const at::Tensor& labels, const MCFALossWeights& weights,
      const at::Generator& generator);

 private:
  at::Tensor draw_noise(int64_t rows, const at::Generator& generator) const;
  at::Tensor count_classes(const at::Tensor& labels, int64_t classes) const;

  MCFAStepOptions options_;
  at::TensorOptions type_;
  Encoder visual_encoder_;
  Decoder visual_decoder_;
  Encoder semantic_encoder_;
  Decoder semantic_decoder_;
  at::Tensor temperature_;
};

}  // namespace mcfa_fast
