// Sampling from Gaussians on the GPU.
#include "../common/launch.cuh"
#include "kernels.cuh"
#include "op.h"

namespace mcfa_fast {
namespace {

using at::Tensor;

template <typename T, int kVector>
void launch_sampling(const Reparameterization<T>& args, const Tensor& mean, const Tensor& samples) {
  launch(
      reparameterize_forward_kernel<T, kVector>, blocks_for(mean.numel() / kVector, kReparameterizeThreads),
      kReparameterizeThreads, 0, args, input_pointer<T>(mean), output_pointer<T>(samples));
}

template <typename T, int kVector>
void launch_sampling_backward(
    const Reparameterization<T>& args, const Tensor& grad_samples, const Tensor& grad_logvar) {
  launch(
      reparameterize_backward_kernel<T, kVector>, blocks_for(grad_samples.numel() / kVector, kReparameterizeThreads),
      kReparameterizeThreads, 0, args, input_pointer<T>(grad_samples), output_pointer<T>(grad_logvar));
}

template <typename T>
Reparameterization<T> sampling(const Tensor& logvar, const Tensor& noise, double power) {
  return {
      input_pointer<T>(logvar),        input_pointer<T>(noise), logvar.size(0), logvar.size(1),
      noise.size(1) != logvar.size(1), static_cast<Accumulate<T>>(power)};
}

// Whether all of it can be read 16 bytes at a time; noise shared by each row is read by the element.
template <typename T>
bool sampling_vectorizes(const Tensor& first, const Tensor& logvar, const Tensor& noise) {
  return vectorizes<T>({first, logvar}) && (noise.size(1) != logvar.size(1) || vectorizes<T>({noise}));
}

Tensor reparameterize_forward_cuda(
    const Tensor& mean_input, const Tensor& logvar_input, const Tensor& noise_input, double power) {
  const c10::DeviceGuard guard(mean_input.device());
  const auto mean = mean_input.contiguous();
  const auto logvar = logvar_input.contiguous();
  const auto noise = noise_input.contiguous();
  const auto samples = at::empty_like(mean);
  with_device_type(mean.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const auto run =
        sampling_vectorizes<T>(mean, logvar, noise) ? launch_sampling<T, kWidestVector<T>> : launch_sampling<T, 1>;
    run(sampling<T>(logvar, noise, power), mean, samples);
  });
  return samples;
}

Tensor reparameterize_backward_cuda(
    const Tensor& grad_input, const Tensor& logvar_input, const Tensor& noise_input, double power) {
  const c10::DeviceGuard guard(grad_input.device());
  const auto grad_samples = grad_input.contiguous();
  const auto logvar = logvar_input.contiguous();
  const auto noise = noise_input.contiguous();
  const auto grad_logvar = at::empty_like(logvar);
  with_device_type(logvar.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const auto run = sampling_vectorizes<T>(grad_samples, logvar, noise)
        ? launch_sampling_backward<T, kWidestVector<T>>
        : launch_sampling_backward<T, 1>;
    run(sampling<T>(logvar, noise, power), grad_samples, grad_logvar);
  });
  return grad_logvar;
}

MCFA_REGISTER_KERNEL(MCFA_CUDA_LIBRARY, MCFA_CUDA_KEY, ReparameterizeForward, reparameterize_forward_cuda)
MCFA_REGISTER_KERNEL(MCFA_CUDA_LIBRARY, MCFA_CUDA_KEY, ReparameterizeBackward, reparameterize_backward_cuda)

}  // namespace
}  // namespace mcfa_fast
