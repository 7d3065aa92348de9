// What every operator needs besides its own arithmetic: calls through the dispatcher, and the kernels that follow from
// its signature alone.
//
// An operator is described by a type, in its op.h:
//
//   struct KLForward {
//     static constexpr char kName[] = "kl_forward";
//     static constexpr char kSchema[] = "(Tensor mean, ...) -> Tensor loss";
//     using Signature = at::Tensor(const at::Tensor& mean, ...);
//     static void check(const at::Tensor& mean, ...);  // throws unless the arguments fit together
//   };
//
// A backward operator also has kFunction, the name that its errors speak of. An operator of many arguments has
// pack(arguments...), a tuple of structs that its implementations and check() take instead, and unpack(what they return).
#pragma once

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/enum_tag.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "checks.h"

namespace mcfa_fast {

// The operators' namespace is that of the code, spelled by the preprocessor because the tests build a second copy under
// another name.
#define MCFA_QUOTE(text) #text
#define MCFA_QUOTE_EXPANDED(text) MCFA_QUOTE(text)
#define MCFA_NAMESPACE MCFA_QUOTE_EXPANDED(mcfa_fast)

// Undefined tensors, autograd's way of saying "none", as optionals.
inline std::optional<at::Tensor> defined(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

// For Meta: what a contiguous result of that shape, dtype and device is.
inline at::Tensor empty_like_contiguous(const at::Tensor& tensor) {
  return at::empty_symint(tensor.sym_sizes(), tensor.options());
}

// The tensor of an argument or a result, or null: for loops over arguments of any type.
template <typename T>
const at::Tensor* tensor_in(const T& argument) {
  if constexpr (std::is_same_v<T, at::Tensor>) {
    return argument.defined() ? &argument : nullptr;
  } else if constexpr (std::is_same_v<T, std::optional<at::Tensor>>) {
    return argument.has_value() && argument->defined() ? &*argument : nullptr;
  } else {
    return nullptr;
  }
}

// Whether autograd looks at what becomes of any of these arguments.
template <typename... T>
bool is_differentiated(const T&... arguments) {
  const auto differentiated = [](const at::Tensor* tensor) {
    return tensor != nullptr &&
        ((at::GradMode::is_enabled() && tensor->requires_grad()) || tensor->_fw_grad(/*level=*/0).defined());
  };
  return (differentiated(tensor_in(arguments)) || ...);
}

// Labels for a backward pass. It gets the values that the forward pass got, whoever writes to the caller's memory between
// them, as a data loader that reuses its buffers does.
inline at::Tensor saved_labels(const at::Tensor& labels) {
  return labels.clone(at::MemoryFormat::Contiguous);
}

// Autocast brings vectors and matrices of mixed precision to the widest of their dtypes; numbers (0-dim) keep their own,
// and what is not floating is left to the operator's check.
inline bool follows_autocast(const at::Tensor* tensor) {
  return tensor != nullptr && tensor->is_floating_point() && tensor->dim() > 0;
}

template <typename T>
T widened(const T& argument, at::ScalarType type) {
  const auto* tensor = tensor_in(argument);
  if constexpr (std::is_constructible_v<T, at::Tensor>) {
    return follows_autocast(tensor) ? T(tensor->to(type)) : argument;
  } else {
    return argument;
  }
}

// Whether an operator packs its arguments.
template <typename Operator, typename = void>
constexpr bool kPacks = false;
template <typename Operator>
constexpr bool kPacks<Operator, std::void_t<decltype(&Operator::pack)>> = true;

template <typename Operator, typename Signature = typename Operator::Signature>
struct Kernels;

template <typename Operator, typename Result, typename... Arguments>
struct Kernels<Operator, Result(Arguments...)> {
  // Calls the operator through the dispatcher.
  static Result call(Arguments... arguments) {
    static const auto handle =
        c10::Dispatcher::singleton()
            .findSchemaOrThrow((std::string(MCFA_NAMESPACE "::") + Operator::kName).c_str(), "")
            .template typed<Result(Arguments...)>();
    return handle.call(arguments...);
  }

  // A kernel for the dispatcher: `implementation` on the arguments or, where the operator packs them, on what they are
  // packed into.
  template <auto implementation>
  static Result packed(Arguments... arguments) {
    return pass_on([](const auto&... packed) { return implementation(packed...); }, arguments...);
  }

  // A device's kernel: the same on arguments that have been checked.
  template <auto implementation>
  static Result checked(Arguments... arguments) {
    return pass_on(
        [](const auto&... packed) {
          Operator::check(packed...);
          return implementation(packed...);
        },
        arguments...);
  }

  // Autograd, of a backward operator: its result cannot be differentiated, and who tries gets an error that says so.
  static Result once_differentiable(Arguments... arguments) {
    if (!is_differentiated(arguments...)) {
      at::AutoDispatchBelowADInplaceOrView guard;
      return call(arguments...);
    }
    Result result;
    auto outputs = NotTwiceDifferentiable::apply(&result, arguments...);
    size_t next = 0;
    for_each_tensor(result, [&](at::Tensor& tensor) { tensor = outputs[next++]; });
    return result;
  }

  // Autocast, of a forward operator.
  template <c10::DeviceType device>
  static Result autocast(Arguments... arguments) {
    const c10::impl::ExcludeDispatchKeyGuard guard(at::autocast::get_autocast_dispatch_key_from_device_type(device));
    auto widest = at::ScalarType::Undefined;
    const auto see = [&widest](const at::Tensor* tensor) {
      if (follows_autocast(tensor)) {
        const auto type = tensor->scalar_type();
        widest = widest == at::ScalarType::Undefined ? type : at::promote_types(widest, type);
      }
    };
    (see(tensor_in(arguments)), ...);
    return call(widened(arguments, widest)...);
  }

  // Autocast, of a backward operator, which keeps the dtypes of its forward pass.
  template <c10::DeviceType device>
  static Result without_autocast(Arguments... arguments) {
    const c10::impl::ExcludeDispatchKeyGuard guard(at::autocast::get_autocast_dispatch_key_from_device_type(device));
    return call(arguments...);
  }

 private:
  template <typename Compute>
  static Result pass_on(const Compute& compute, Arguments... arguments) {
    if constexpr (kPacks<Operator>) {
      return Operator::unpack(std::apply(compute, Operator::pack(arguments...)));
    } else {
      return compute(arguments...);
    }
  }

  template <typename Visit>
  static void for_each_tensor(Result& result, const Visit& visit) {
    const auto visit_defined = [&](at::Tensor& tensor) {
      if (tensor.defined()) {
        visit(tensor);
      }
    };
    if constexpr (std::is_same_v<Result, at::Tensor>) {
      visit_defined(result);
    } else {
      std::apply([&](auto&... tensors) { (visit_defined(tensors), ...); }, result);
    }
  }

  struct NotTwiceDifferentiable : torch::autograd::Function<NotTwiceDifferentiable> {
    static torch::autograd::variable_list forward(
        torch::autograd::AutogradContext*, Result* result, Arguments... arguments) {
      at::AutoDispatchBelowADInplaceOrView guard;
      *result = call(arguments...);
      torch::autograd::variable_list outputs;
      for_each_tensor(*result, [&](at::Tensor& tensor) { outputs.push_back(tensor); });
      return outputs;
    }
    static torch::autograd::variable_list backward(
        torch::autograd::AutogradContext*, const torch::autograd::variable_list&) {
      throw_double_backward(Operator::kFunction);
    }
  };
};

// Defines an operator.
template <typename Operator>
void define(torch::Library& library) {
  library.set_python_module("mcfa_fast.ops");
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
  library.def((std::string(Operator::kName) + Operator::kSchema).c_str(), tags);
}

// Registers an operator and its backward operator with all that the devices share: schemas, shapes (the kernels
// `forward_meta` and `backward_meta` for Meta), gradients (`forward_autograd`) and autocast.
#define MCFA_REGISTER_OPERATORS(Forward, Backward, forward_meta, backward_meta, forward_autograd) \
  TORCH_LIBRARY_FRAGMENT(mcfa_fast, m) {                                                          \
    define<Forward>(m);                                                                           \
    define<Backward>(m);                                                                          \
  }                                                                                               \
  MCFA_REGISTER_KERNEL(mcfa_fast, Meta, Forward, forward_meta)                                    \
  MCFA_REGISTER_KERNEL(mcfa_fast, Meta, Backward, backward_meta)                                  \
  TORCH_LIBRARY_IMPL(mcfa_fast, Autograd, m) {                                                    \
    m.impl(Forward::kName, Kernels<Forward>::packed<forward_autograd>);                           \
    m.impl(Backward::kName, Kernels<Backward>::once_differentiable);                              \
  }                                                                                               \
  TORCH_LIBRARY_IMPL(mcfa_fast, AutocastCPU, m) {                                                 \
    m.impl(Forward::kName, Kernels<Forward>::autocast<at::kCPU>);                                 \
    m.impl(Backward::kName, Kernels<Backward>::without_autocast<at::kCPU>);                       \
  }                                                                                               \
  TORCH_LIBRARY_IMPL(mcfa_fast, AutocastCUDA, m) {                                                \
    m.impl(Forward::kName, Kernels<Forward>::autocast<at::kCUDA>);                                \
    m.impl(Backward::kName, Kernels<Backward>::without_autocast<at::kCUDA>);                      \
  }

// Registers what a device computes.
#define MCFA_REGISTER_KERNEL(library, key, Operator, implementation)    \
  TORCH_LIBRARY_IMPL(library, key, m) {                                 \
    m.impl(Operator::kName, Kernels<Operator>::checked<implementation>); \
  }

}  // namespace mcfa_fast
