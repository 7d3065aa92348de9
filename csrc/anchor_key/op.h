// Sums over all pairs of anchors and keys, from which losses of memory banks, queues, two towers and many ranks are put
// together: what the devices implement.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

#include "../contrastive/op.h"

namespace mcfa_fast {

// What both passes take.
struct AnchorKeyInputs {
  at::Tensor anchors;                       // [N, D]
  std::optional<at::Tensor> keys;           // [M, D]; without, the anchors are their own keys
  std::optional<at::Tensor> anchor_labels;  // [N]; without labels, key i is the positive of anchor i
  std::optional<at::Tensor> key_labels;     // [M]
  std::optional<at::Tensor> self_index;     // [N] the key that is the anchor itself, if it is one of them
  at::Tensor temperature;                   // 0-dim
  Positives positives;
  bool normalize;
  int64_t ignore_index;

  bool in_form() const {
    return positives == Positives::kIn;
  }
  // Whether the anchors are their own keys.
  bool own_keys() const {
    return !keys.has_value();
  }
  const at::Tensor& key_rows() const {
    return keys ? *keys : anchors;
  }
};

// Of each anchor over the keys, or of each key over the anchors, in the accumulation dtype.
struct SideSums {
  at::Tensor log_sum_exp;  // minus infinity where there is no pair
  at::Tensor positives;    // "out": sum of similarities; "in": log-sum-exp, minus infinity where there is none
  at::Tensor counts;       // int64
};

struct AnchorKeyResult {
  SideSums anchors;
  SideSums keys;  // of size 0 unless asked for
};

// Tensors that belong to a side's sums, those that count.
struct SideTerms {
  std::optional<at::Tensor> log_sum_exp;
  std::optional<at::Tensor> positives;
};

// Gradients of the sums; or the sums that forward leaves for backward: those with a gradient, positives in the "in" form
// alone.
struct AnchorKeyTerms {
  SideTerms anchors;
  SideTerms keys;
};

// Of anchors that are their own keys, whose sums are those of both sides: the gradients and sums of the one side.
std::pair<SideTerms, SideTerms> both_sides(const AnchorKeyTerms& grads, const AnchorKeyTerms& sums);

// Which of anchors and keys want a gradient. That of the temperature is a by-product.
using AnchorKeyMask = std::array<bool, 2>;

// Undefined where a gradient is not wanted; that of the temperature is on the device of `anchors`.
struct AnchorKeyInputGrads {
  at::Tensor anchors;
  at::Tensor keys;
  at::Tensor temperature;
};

struct AnchorKeyForward {
  static constexpr char kName[] = "anchor_key_forward";
  static constexpr char kSchema[] =
      "(Tensor anchors, Tensor? keys, Tensor? anchor_labels, Tensor? key_labels, Tensor? self_index, "
      "Tensor temperature, bool key_side, str positives, bool normalize, int ignore_index) -> "
      "(Tensor lse, Tensor of_positives, Tensor counts, Tensor key_lse, Tensor key_of_positives, Tensor key_counts)";
  using Result = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
  using Signature = Result(
      const at::Tensor& anchors, const std::optional<at::Tensor>& keys, const std::optional<at::Tensor>& anchor_labels,
      const std::optional<at::Tensor>& key_labels, const std::optional<at::Tensor>& self_index,
      const at::Tensor& temperature, bool key_side, std::string_view positives, bool normalize, int64_t ignore_index);

  static std::tuple<AnchorKeyInputs, bool> pack(
      const at::Tensor& anchors, const std::optional<at::Tensor>& keys, const std::optional<at::Tensor>& anchor_labels,
      const std::optional<at::Tensor>& key_labels, const std::optional<at::Tensor>& self_index,
      const at::Tensor& temperature, bool key_side, std::string_view positives, bool normalize, int64_t ignore_index);
  static Result unpack(const AnchorKeyResult& result);
  static void check(const AnchorKeyInputs& inputs, bool key_side);
};

struct AnchorKeyBackward {
  static constexpr char kName[] = "anchor_key_backward";
  static constexpr char kFunction[] = "sums over anchors and keys";
  static constexpr char kSchema[] =
      "(Tensor? grad_lse, Tensor? grad_positives, Tensor? grad_key_lse, Tensor? grad_key_positives, "
      "Tensor anchors, Tensor? keys, Tensor? anchor_labels, Tensor? key_labels, Tensor? self_index, "
      "Tensor temperature, Tensor? lse, Tensor? of_positives, Tensor? key_lse, Tensor? key_of_positives, "
      "str positives, bool normalize, int ignore_index, bool[2] mask) -> "
      "(Tensor grad_anchors, Tensor grad_keys, Tensor grad_temperature)";
  using Result = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
  using Signature = Result(
      const std::optional<at::Tensor>& grad_lse, const std::optional<at::Tensor>& grad_positives,
      const std::optional<at::Tensor>& grad_key_lse, const std::optional<at::Tensor>& grad_key_positives,
      const at::Tensor& anchors, const std::optional<at::Tensor>& keys, const std::optional<at::Tensor>& anchor_labels,
      const std::optional<at::Tensor>& key_labels, const std::optional<at::Tensor>& self_index,
      const at::Tensor& temperature, const std::optional<at::Tensor>& lse,
      const std::optional<at::Tensor>& of_positives, const std::optional<at::Tensor>& key_lse,
      const std::optional<at::Tensor>& key_of_positives, std::string_view positives, bool normalize,
      int64_t ignore_index, AnchorKeyMask mask);

  static std::tuple<AnchorKeyInputs, AnchorKeyTerms, AnchorKeyTerms, AnchorKeyMask> pack(
      const std::optional<at::Tensor>& grad_lse, const std::optional<at::Tensor>& grad_positives,
      const std::optional<at::Tensor>& grad_key_lse, const std::optional<at::Tensor>& grad_key_positives,
      const at::Tensor& anchors, const std::optional<at::Tensor>& keys, const std::optional<at::Tensor>& anchor_labels,
      const std::optional<at::Tensor>& key_labels, const std::optional<at::Tensor>& self_index,
      const at::Tensor& temperature, const std::optional<at::Tensor>& lse,
      const std::optional<at::Tensor>& of_positives, const std::optional<at::Tensor>& key_lse,
      const std::optional<at::Tensor>& key_of_positives, std::string_view positives, bool normalize,
      int64_t ignore_index, AnchorKeyMask mask);
  static Result unpack(const AnchorKeyInputGrads& grads);
  static void check(
      const AnchorKeyInputs& inputs, const AnchorKeyTerms& grads, const AnchorKeyTerms& sums, AnchorKeyMask mask);
};

}  // namespace mcfa_fast
