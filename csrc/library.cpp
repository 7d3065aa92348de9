// Every operator's schema, once. Implementations register themselves where they are written:
// <stem>/op.cpp (Meta, Autograd, Autocast), <stem>/cpu.cpp and, in a CUDA build, <stem>/cuda.cu.
#include <ATen/core/enum_tag.h>
#include <torch/library.h>

TORCH_LIBRARY(mcfa_fast, m) {
  m.set_python_module("mcfa_fast.ops");
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};

  // Contrastive losses of MCFA (Eqs. 4-6), those asked for, in one pass; with log-sum-exps for backward.
  m.def(
      "contrastive_forward(Tensor visual, Tensor? semantic, Tensor labels, Tensor temperature, "
      "bool vtov, bool vtos, bool stov, str positives, str reduction, bool normalize, int ignore_index) -> "
      "(Tensor loss_vtov, Tensor loss_vtos, Tensor loss_stov, "
      "Tensor lse_vtov, Tensor lse_positives, Tensor lse_vtos, Tensor lse_stov)",
      tags);
  m.def(
      "contrastive_backward(Tensor? grad_vtov, Tensor? grad_vtos, Tensor? grad_stov, "
      "Tensor visual, Tensor? semantic, Tensor labels, Tensor temperature, "
      "Tensor lse_vtov, Tensor lse_positives, Tensor lse_vtos, Tensor lse_stov, "
      "str positives, str reduction, bool normalize, int ignore_index) -> "
      "(Tensor grad_visual, Tensor grad_semantic, Tensor grad_temperature)",
      tags);

  // Wasserstein alignment of MCFA (Eq. 3); the rows of b are gathered by label where labels are given.
  m.def(
      "wasserstein_forward(Tensor mean_a, Tensor logvar_a, Tensor mean_b, Tensor logvar_b, Tensor? labels, "
      "str reduction) -> (Tensor loss, Tensor distance)",
      tags);
  m.def(
      "wasserstein_backward(Tensor grad_loss, Tensor distance, Tensor mean_a, Tensor logvar_a, Tensor mean_b, "
      "Tensor logvar_b, Tensor? labels, str reduction) -> "
      "(Tensor grad_mean_a, Tensor grad_logvar_a, Tensor grad_mean_b, Tensor grad_logvar_b)",
      tags);

  // KL divergence of diagonal Gaussians from the unit Gaussian (MCFA, Eq. 1).
  m.def("kl_forward(Tensor mean, Tensor logvar, str reduction) -> Tensor loss", tags);
  m.def(
      "kl_backward(Tensor grad_loss, Tensor mean, Tensor logvar, str reduction) -> "
      "(Tensor grad_mean, Tensor grad_logvar)",
      tags);

  // Sum of absolute differences of rows from rows of a table, gathered by label where labels are given (MCFA, Eqs. 1-2).
  m.def("l1_forward(Tensor instances, Tensor table, Tensor? labels, str reduction) -> Tensor loss", tags);
  m.def(
      "l1_backward(Tensor grad_loss, Tensor instances, Tensor table, Tensor? labels, str reduction, "
      "bool[2] output_mask) -> (Tensor grad_instances, Tensor grad_table)",
      tags);

  // Samples mean + exp(power * logvar) * noise of diagonal Gaussians; mean's gradient is that of the samples.
  m.def("reparameterize_forward(Tensor mean, Tensor logvar, Tensor noise, float power) -> Tensor samples", tags);
  m.def(
      "reparameterize_backward(Tensor grad_samples, Tensor logvar, Tensor noise, float power) -> Tensor grad_logvar",
      tags);
}
