// The contrastive losses of MCFA (Eqs. 4-6), those asked for, in one pass: what the devices implement and what they
// share.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>
#include <tuple>

#include "../common/operator.h"

namespace mcfa_fast {

enum class Positives { kOut, kIn };

Positives parse_positives(std::string_view positives);
std::string_view name_of(Positives positives);

// What both passes take.
struct ContrastiveInputs {
  at::Tensor visual;                   // [N, D]
  std::optional<at::Tensor> semantic;  // [C, D]
  at::Tensor labels;                   // [N]
  at::Tensor temperature;              // 0-dim
  Positives positives;
  Reduction reduction;
  bool normalize;
  int64_t ignore_index;

  bool in_form() const {
    return positives == Positives::kIn;
  }
  int64_t instances() const {
    return visual.size(0);
  }
  int64_t classes() const {
    return semantic ? semantic->size(0) : 0;
  }
};

// Which losses are asked for.
struct ContrastiveWanted {
  bool vtov;
  bool vtos;
  bool stov;

  bool cross() const {
    return vtos || stov;
  }
};

// What forward leaves for backward, in the accumulation dtype: 0 for rows that take no part, and of size 0 where a loss
// was not asked for.
struct ContrastiveSums {
  at::Tensor vtov;       // [N]
  at::Tensor positives;  // [N], VtoV's positives, "in" form only
  at::Tensor vtos;       // [N]
  at::Tensor stov;       // [C]
};

// Losses are 0-dim, or per anchor for reduction "none".
struct ContrastiveLosses {
  at::Tensor vtov;
  at::Tensor vtos;
  at::Tensor stov;
  ContrastiveSums log_sum_exps;
};

// Gradients of the losses; none for a loss that was not asked for or does not count.
struct ContrastiveLossGrads {
  std::optional<at::Tensor> vtov;
  std::optional<at::Tensor> vtos;
  std::optional<at::Tensor> stov;

  bool cross() const {
    return vtos || stov;
  }
};

// The gradient of the temperature is on the device of `visual`, so that nothing waits for it: autograd moves it only where
// it is wanted.
struct ContrastiveInputGrads {
  at::Tensor visual;
  at::Tensor semantic;  // of size 0 without a semantic input
  at::Tensor temperature;
};

// The operators with their arguments one by one, as the dispatcher has them. All but the labels' values is checked,
// those where they are read.
struct ContrastiveForward {
  static constexpr char kName[] = "contrastive_forward";
  static constexpr char kSchema[] =
      "(Tensor visual, Tensor? semantic, Tensor labels, Tensor temperature, bool vtov, bool vtos, bool stov, "
      "str positives, str reduction, bool normalize, int ignore_index) -> "
      "(Tensor loss_vtov, Tensor loss_vtos, Tensor loss_stov, "
      "Tensor lse_vtov, Tensor lse_positives, Tensor lse_vtos, Tensor lse_stov)";
  using Result = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
  using Signature = Result(
      const at::Tensor& visual, const std::optional<at::Tensor>& semantic, const at::Tensor& labels,
      const at::Tensor& temperature, bool vtov, bool vtos, bool stov, std::string_view positives,
      std::string_view reduction, bool normalize, int64_t ignore_index);

  static std::tuple<ContrastiveInputs, ContrastiveWanted> pack(
      const at::Tensor& visual, const std::optional<at::Tensor>& semantic, const at::Tensor& labels,
      const at::Tensor& temperature, bool vtov, bool vtos, bool stov, std::string_view positives,
      std::string_view reduction, bool normalize, int64_t ignore_index);
  static Result unpack(const ContrastiveLosses& losses);
  static void check(const ContrastiveInputs& inputs, const ContrastiveWanted& wanted);
};

struct ContrastiveBackward {
  static constexpr char kName[] = "contrastive_backward";
  static constexpr char kFunction[] = "contrastive losses";
  static constexpr char kSchema[] =
      "(Tensor? grad_vtov, Tensor? grad_vtos, Tensor? grad_stov, "
      "Tensor visual, Tensor? semantic, Tensor labels, Tensor temperature, "
      "Tensor lse_vtov, Tensor lse_positives, Tensor lse_vtos, Tensor lse_stov, "
      "str positives, str reduction, bool normalize, int ignore_index) -> "
      "(Tensor grad_visual, Tensor grad_semantic, Tensor grad_temperature)";
  using Result = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
  using Signature = Result(
      const std::optional<at::Tensor>& grad_vtov, const std::optional<at::Tensor>& grad_vtos,
      const std::optional<at::Tensor>& grad_stov, const at::Tensor& visual, const std::optional<at::Tensor>& semantic,
      const at::Tensor& labels, const at::Tensor& temperature, const at::Tensor& lse_vtov,
      const at::Tensor& lse_positives, const at::Tensor& lse_vtos, const at::Tensor& lse_stov,
      std::string_view positives, std::string_view reduction, bool normalize, int64_t ignore_index);

  static std::tuple<ContrastiveInputs, ContrastiveLossGrads, ContrastiveSums> pack(
      const std::optional<at::Tensor>& grad_vtov, const std::optional<at::Tensor>& grad_vtos,
      const std::optional<at::Tensor>& grad_stov, const at::Tensor& visual, const std::optional<at::Tensor>& semantic,
      const at::Tensor& labels, const at::Tensor& temperature, const at::Tensor& lse_vtov,
      const at::Tensor& lse_positives, const at::Tensor& lse_vtos, const at::Tensor& lse_stov,
      std::string_view positives, std::string_view reduction, bool normalize, int64_t ignore_index);
  static Result unpack(const ContrastiveInputGrads& grads);
  static void check(
      const ContrastiveInputs& inputs, const ContrastiveLossGrads& grads, const ContrastiveSums& log_sum_exps);
};

// Calls the operators, through the dispatcher.
ContrastiveLosses contrastive_forward(const ContrastiveInputs& inputs, const ContrastiveWanted& wanted);
ContrastiveInputGrads contrastive_backward(
    const ContrastiveInputs& inputs, const ContrastiveLossGrads& grads, const ContrastiveSums& log_sum_exps);

// A number on the CPU or on the device of the latents; its value is checked where it is read.
void check_temperature(const at::Tensor& temperature, const at::Tensor& latents, const char* latents_name);

// The value of a temperature on the CPU; raises ValueError unless it is positive, finite and of a size that sums of that
// dtype can be computed with.
double read_temperature(const at::Tensor& temperature, at::ScalarType type);

}  // namespace mcfa_fast
