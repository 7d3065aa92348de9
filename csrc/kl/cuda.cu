// The KL divergence on the GPU.
#include "../common/launch.cuh"
#include "kernels.cuh"
#include "op.h"

namespace mcfa_fast {
namespace {

using at::Tensor;

template <typename T, int kVector>
void launch_kl_forward(const Tensor& mean, const Tensor& logvar, const Tensor& divergence) {
  const int group = lanes_per_row(mean.size(1), kVector);
  launch(
      kl_forward_kernel<T, kVector>, blocks_for(mean.size(0) * group, kKLThreads), kKLThreads, 0,
      input_pointer<T>(mean), input_pointer<T>(logvar), mean.size(0), mean.size(1), group,
      output_pointer<Accumulate<T>>(divergence));
}

template <typename T, int kVector>
void launch_kl_backward(const Tensor& mean, const Tensor& logvar, const KLGrads<T>& grads) {
  launch(
      kl_backward_kernel<T, kVector>, blocks_for(mean.numel() / kVector, kKLThreads), kKLThreads, 0,
      input_pointer<T>(mean), input_pointer<T>(logvar), mean.size(0), mean.size(1), grads);
}

Tensor kl_forward_cuda(const Tensor& mean_input, const Tensor& logvar_input, std::string_view reduction_name) {
  const auto reduction = parse_reduction(reduction_name);
  const c10::DeviceGuard guard(mean_input.device());
  const auto mean = mean_input.contiguous();
  const auto logvar = logvar_input.contiguous();
  const auto divergence = at::empty({mean.size(0)}, mean.options().dtype(accumulation_type(mean.scalar_type())));
  with_device_type(mean.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const auto run = vectorizes<T>({mean, logvar}) ? launch_kl_forward<T, kWidestVector<T>> : launch_kl_forward<T, 1>;
    run(mean, logvar, divergence);
  });
  return reduced(divergence, reduction);
}

KLBackward::Result kl_backward_cuda(
    const Tensor& grad_loss, const Tensor& mean_input, const Tensor& logvar_input, std::string_view reduction_name) {
  const auto reduction = parse_reduction(reduction_name);
  const c10::DeviceGuard guard(mean_input.device());
  const auto mean = mean_input.contiguous();
  const auto logvar = logvar_input.contiguous();
  const auto grad = grad_loss.to(accumulation_type(mean.scalar_type())).contiguous();
  auto grad_mean = at::empty_like(mean);
  auto grad_logvar = at::empty_like(logvar);
  const double scale = reduction == Reduction::kMean ? 1.0 / std::max<int64_t>(mean.size(0), 1) : 1.0;
  with_device_type(mean.scalar_type(), [&](auto type) {
    using T = decltype(type);
    using A = Accumulate<T>;
    const KLGrads<T> grads{
        input_pointer<A>(grad), grad.dim(), static_cast<A>(scale), output_pointer<T>(grad_mean),
        output_pointer<T>(grad_logvar)};
    const auto run = vectorizes<T>({mean, logvar}) ? launch_kl_backward<T, kWidestVector<T>> : launch_kl_backward<T, 1>;
    run(mean, logvar, grads);
  });
  return {grad_mean, grad_logvar};
}

MCFA_REGISTER_KERNEL(MCFA_CUDA_LIBRARY, MCFA_CUDA_KEY, KLForward, kl_forward_cuda)
MCFA_REGISTER_KERNEL(MCFA_CUDA_LIBRARY, MCFA_CUDA_KEY, KLBackward, kl_backward_cuda)

}  // namespace
}  // namespace mcfa_fast
