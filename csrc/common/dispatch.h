// Small pieces that every operator's dispatch code needs.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <initializer_list>
#include <optional>
#include <string>

namespace mcfa_fast {

// A typed handle of one of this library's operators, to call it through the dispatcher. The operators' namespace is
// that of the code, spelled by the preprocessor because the tests build a second copy under another name.
#define MCFA_QUOTE(text) #text
#define MCFA_QUOTE_EXPANDED(text) MCFA_QUOTE(text)
template <typename Signature>
auto operator_handle(const char* name) {
  const std::string full_name = std::string(MCFA_QUOTE_EXPANDED(mcfa_fast) "::") + name;
  return c10::Dispatcher::singleton().findSchemaOrThrow(full_name.c_str(), "").template typed<Signature>();
}

// Undefined tensors, autograd's way of saying "none", as optionals.
inline std::optional<at::Tensor> defined(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

// For autocast: the widest of the floating dtypes given, in which mixed inputs are computed.
inline at::ScalarType widest_type(std::initializer_list<std::optional<at::Tensor>> tensors) {
  auto widest = at::ScalarType::Undefined;
  for (const auto& tensor : tensors) {
    if (tensor && tensor->is_floating_point()) {
      const auto type = tensor->scalar_type();
      widest = widest == at::ScalarType::Undefined ? type : at::promote_types(widest, type);
    }
  }
  return widest;
}

// `tensor` in that dtype; left alone if it is not floating, so that the operator's own check names it.
inline at::Tensor to_floating(const at::Tensor& tensor, at::ScalarType type) {
  return tensor.is_floating_point() ? tensor.to(type) : tensor;
}

}  // namespace mcfa_fast
