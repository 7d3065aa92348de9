// The Wasserstein alignment on the GPU. A label outside [0, C) stops with a device assertion.
#include "../common/sorted_labels.cuh"
#include "kernels.cuh"
#include "op.h"

namespace mcfa_fast {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// The inputs in memory as the kernels expect them.
struct Inputs {
  Tensor mean_a;
  Tensor logvar_a;
  Tensor mean_b;
  Tensor logvar_b;

  template <typename T>
  bool vectorize() const {
    return vectorizes<T>({mean_a, logvar_a, mean_b, logvar_b});
  }

  template <typename T>
  Gaussians<T> arguments(int vector) const {
    return {input_pointer<T>(mean_a), input_pointer<T>(logvar_a), input_pointer<T>(mean_b), input_pointer<T>(logvar_b),
            mean_a.size(0),           mean_b.size(0),             mean_a.size(1),
            lanes_per_row(mean_a.size(1), vector)};
  }
};

template <typename T, int kVector>
void launch_forward(const Inputs& inputs, const Tensor& labels, const Tensor& distance) {
  const auto args = inputs.arguments<T>(kVector);
  launch(
      wasserstein_forward_kernel<T, kVector>, blocks_for(args.rows * args.group, kWassersteinThreads), kWassersteinThreads, 0,
      args, input_pointer<int64_t>(labels), output_pointer<Accumulate<T>>(distance));
}

template <typename T, int kVector>
void launch_backward(
    const Inputs& inputs, const WassersteinGrads<T>& grads, const OptionalTensor& labels) {
  const auto args = inputs.arguments<T>(kVector);
  const int64_t groups = (args.rows + kWassersteinRows - 1) / kWassersteinRows;
  const auto launch_rows = [&](const int64_t* keys, const int64_t* order, const ClassSums<Accumulate<T>>& sums) {
    launch(
        wasserstein_backward_kernel<T, kVector>, blocks_for(groups * args.group, kWassersteinThreads), kWassersteinThreads, 0,
        args, grads, keys, order, sums);
  };
  if (!labels) {
    launch_rows(nullptr, nullptr, {});
    return;
  }
  const auto sorted = SortedLabelsOnDevice::of(*labels, std::nullopt, args.classes, true);
  const auto space = at::empty({2, args.classes + groups, args.width}, accumulating<T>(inputs.mean_a));
  auto* first = output_pointer<Accumulate<T>>(space);
  const ClassSums<Accumulate<T>> sums{first, first + (args.classes + groups) * args.width};
  launch_rows(input_pointer<int64_t>(sorted.keys), input_pointer<int64_t>(sorted.order), sums);
  launch(
      wasserstein_classes_kernel<T>, static_cast<unsigned>(args.classes), kWassersteinThreads, 0, args, grads,
      input_pointer<int64_t>(sorted.class_begin), input_pointer<int64_t>(sorted.class_end), sums);
}

WassersteinForward::Result wasserstein_forward_cuda(
    const Tensor& mean_a, const Tensor& logvar_a, const Tensor& mean_b, const Tensor& logvar_b,
    const OptionalTensor& labels, std::string_view reduction_name) {
  const auto reduction = parse_reduction(reduction_name);
  const c10::DeviceGuard guard(mean_a.device());
  const Inputs inputs{mean_a.contiguous(), logvar_a.contiguous(), mean_b.contiguous(), logvar_b.contiguous()};
  const auto targets = labels ? labels->to(at::kLong).contiguous() : Tensor();
  const auto distance =
      at::empty({mean_a.size(0)}, mean_a.options().dtype(accumulation_type(mean_a.scalar_type())));
  with_device_type(mean_a.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const auto run = inputs.vectorize<T>() ? launch_forward<T, kWidestVector<T>> : launch_forward<T, 1>;
    run(inputs, targets, distance);
  });
  return {reduced(distance, reduction), distance};
}

WassersteinBackward::Result wasserstein_backward_cuda(
    const Tensor& grad_loss, const Tensor& distance_input, const Tensor& mean_a, const Tensor& logvar_a,
    const Tensor& mean_b, const Tensor& logvar_b, const OptionalTensor& labels, std::string_view reduction_name) {
  const auto reduction = parse_reduction(reduction_name);
  const c10::DeviceGuard guard(mean_a.device());
  const Inputs inputs{mean_a.contiguous(), logvar_a.contiguous(), mean_b.contiguous(), logvar_b.contiguous()};
  const auto distance = distance_input.contiguous();
  const auto grad = grad_loss.to(distance.scalar_type()).contiguous();
  const WassersteinBackward::Result result{
      at::empty_like(inputs.mean_a), at::empty_like(inputs.mean_a), at::empty_like(inputs.mean_b),
      at::empty_like(inputs.mean_b)};
  const auto& [grad_mean_a, grad_logvar_a, grad_mean_b, grad_logvar_b] = result;
  const double scale = reduction == Reduction::kMean ? 1.0 / std::max<int64_t>(mean_a.size(0), 1) : 1.0;
  with_device_type(mean_a.scalar_type(), [&, &grad_mean_a = grad_mean_a, &grad_logvar_a = grad_logvar_a,
                                          &grad_mean_b = grad_mean_b, &grad_logvar_b = grad_logvar_b](auto type) {
    using T = decltype(type);
    using A = Accumulate<T>;
    const WassersteinGrads<T> grads{
        input_pointer<A>(grad),          grad.dim(),
        static_cast<A>(scale),           input_pointer<A>(distance),
        output_pointer<T>(grad_mean_a),  output_pointer<T>(grad_logvar_a),
        output_pointer<T>(grad_mean_b),  output_pointer<T>(grad_logvar_b)};
    const auto run = inputs.vectorize<T>() ? launch_backward<T, kWidestVector<T>> : launch_backward<T, 1>;
    run(inputs, grads, labels);
  });
  return result;
}

MCFA_REGISTER_KERNEL(MCFA_CUDA_LIBRARY, MCFA_CUDA_KEY, WassersteinForward, wasserstein_forward_cuda)
MCFA_REGISTER_KERNEL(MCFA_CUDA_LIBRARY, MCFA_CUDA_KEY, WassersteinBackward, wasserstein_backward_cuda)

}  // namespace
}  // namespace mcfa_fast
