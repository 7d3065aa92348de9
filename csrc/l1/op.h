// The L1 distance of rows from rows of a table, gathered by label where labels are given: the reconstruction terms of
// MCFA (Eqs. 1-2). What the devices implement and what they share.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <string_view>
#include <tuple>

#include "../common/operator.h"

namespace mcfa_fast {

struct L1Forward {
  static constexpr char kName[] = "l1_forward";
  static constexpr char kSchema[] = "(Tensor instances, Tensor table, Tensor? labels, str reduction) -> Tensor loss";
  using Signature = at::Tensor(
      const at::Tensor& instances, const at::Tensor& table, const std::optional<at::Tensor>& labels,
      std::string_view reduction);
  // All but the labels' values, which are checked where they are read.
  static void check(
      const at::Tensor& instances, const at::Tensor& table, const std::optional<at::Tensor>& labels,
      std::string_view reduction);
};

struct L1Backward {
  static constexpr char kName[] = "l1_backward";
  static constexpr char kFunction[] = "l1_reconstruction";
  static constexpr char kSchema[] =
      "(Tensor grad_loss, Tensor instances, Tensor table, Tensor? labels, str reduction, bool[2] output_mask) -> "
      "(Tensor grad_instances, Tensor grad_table)";
  // Which gradients are wanted; the others are undefined tensors.
  using Mask = std::array<bool, 2>;
  using Result = std::tuple<at::Tensor, at::Tensor>;
  using Signature = Result(
      const at::Tensor& grad_loss, const at::Tensor& instances, const at::Tensor& table,
      const std::optional<at::Tensor>& labels, std::string_view reduction, Mask output_mask);
  static void check(
      const at::Tensor& grad_loss, const at::Tensor& instances, const at::Tensor& table,
      const std::optional<at::Tensor>& labels, std::string_view reduction, Mask output_mask);
};

}  // namespace mcfa_fast
