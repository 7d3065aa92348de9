// Launching kernels from PyTorch operators: on the current stream, each launch checked, nothing ever waited for.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <string>
#include <string_view>

#include "checks.h"
#include "device.cuh"

namespace mcfa_fast {

// Which kernels run where there is one for all GPUs and one with Hopper's own instructions. As long as nobody has
// measured that the latter win, they have to be asked for; kPolynomial leaves a quarter of their exponentials to the
// units for multiplication and addition.
enum class HopperKernels { kOff, kOn, kPolynomial };

}  // namespace mcfa_fast

#ifdef MCFA_CUDA_HARNESS
#include "harness_launch.h"
#else
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAException.h>

namespace mcfa_fast {

#define MCFA_CUDA_LIBRARY mcfa_fast
#define MCFA_CUDA_KEY CUDA

template <typename... Parameters, typename... Arguments>
void launch_blocks(
    void (*kernel)(Parameters...), dim3 grid, int threads, int64_t shared, const Arguments&... arguments) {
  constexpr int64_t kWithoutAsking = 48 * 1024;
  if (shared > kWithoutAsking) {
    C10_CUDA_CHECK(cudaFuncSetAttribute(
        reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
  }
  kernel<<<grid, threads, shared, at::cuda::getCurrentCUDAStream()>>>(static_cast<Parameters>(arguments)...);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// The dynamic shared memory that one block can have on the current device, in bytes.
inline int64_t shared_memory_limit() {
  return static_cast<int64_t>(at::cuda::getCurrentDeviceProperties()->sharedMemPerBlockOptin);
}

// What MCFA_FAST_HOPPER in the environment asks for.
inline HopperKernels hopper_kernels() {
  static const std::string wish = [] {
    const char* value = std::getenv("MCFA_FAST_HOPPER");
    return std::string(value == nullptr ? "off" : value);
  }();
  TORCH_CHECK_VALUE(
      wish == "off" || wish == "on" || wish == "polynomial",
      "MCFA_FAST_HOPPER: expected 'off', 'on' or 'polynomial', but got '", wish, "'");
  return wish == "off" ? HopperKernels::kOff : wish == "on" ? HopperKernels::kOn : HopperKernels::kPolynomial;
}

// Throws unless this GPU and this build have what the kernels with Hopper's own instructions need.
inline void check_hopper() {
  const auto* properties = at::cuda::getCurrentDeviceProperties();
  TORCH_CHECK_VALUE(
      properties->major == 9 && properties->minor == 0,
      "MCFA_FAST_HOPPER: expected 'off' unless the GPU is of compute capability 9.0, but this is a ", properties->name,
      " of ", properties->major, ".", properties->minor);
  // A build for 9.0 has the kernels, but empty.
  TORCH_CHECK_VALUE(
      std::string_view(MCFA_CUDA_ARCHITECTURES).find("9.0a") != std::string_view::npos,
      "MCFA_FAST_HOPPER: expected 'off' unless the extension is built for 9.0a, but this one is for ",
      MCFA_CUDA_ARCHITECTURES, " (TORCH_CUDA_ARCH_LIST)");
}

// Wide latents are taken in blocks of block_size() rows and as many columns. A block's gradients are one product, whose
// results are tiles enough for a wave. Its similarities come in chunks of chunk_columns(), a part of block_size(): in
// float32 32 MiB, which stay in Hopper's second-level cache of 50 MB, and as tiles of 128 x 256 two waves of its 132
// multiprocessors, 256 places of 264.
inline int64_t block_size() {
  return 4096;
}
inline int64_t chunk_columns() {
  return 2048;
}

// Into how many chunks mma_symmetric_kernel cuts the rows at most.
inline int64_t most_symmetric_chunks() {
  return 64;
}

// a · b in `type`, which 16-bit factors do not narrow to their own.
inline at::Tensor wide_product(const at::Tensor& a, const at::Tensor& b, at::ScalarType type) {
  return a.scalar_type() == type ? at::mm(a, b) : at::mm(a, b, type);
}

}  // namespace mcfa_fast
#endif

namespace mcfa_fast {

// An empty grid launches nothing. `shared` is the dynamic shared memory in bytes.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, int threads, int64_t shared, const Arguments&... arguments) {
  if (grid.x > 0 && grid.y > 0 && grid.z > 0) {
    launch_blocks(kernel, grid, threads, shared, arguments...);
  }
}

inline unsigned blocks_for(int64_t size, int64_t per_block) {
  return static_cast<unsigned>((size + per_block - 1) / per_block);
}

// The device's type for a dtype of PyTorch.
template <typename T>
struct HostType {
  using type = T;
};
template <>
struct HostType<float16> {
  using type = at::Half;
};
template <>
struct HostType<bfloat16> {
  using type = at::BFloat16;
};

template <typename T>
const T* input_pointer(const at::Tensor& tensor) {
  return tensor.defined() ? reinterpret_cast<const T*>(tensor.const_data_ptr<typename HostType<T>::type>()) : nullptr;
}
template <typename T>
T* output_pointer(const at::Tensor& tensor) {
  return tensor.defined() ? reinterpret_cast<T*>(tensor.mutable_data_ptr<typename HostType<T>::type>()) : nullptr;
}

// Calls compute(T()) with the device's type for `type`, one of those that check_floating lets through.
template <typename Compute>
auto with_device_type(at::ScalarType type, const Compute& compute) {
  switch (type) {
    case at::kHalf:
      return compute(float16());
    case at::kBFloat16:
      return compute(bfloat16());
    case at::kDouble:
      return compute(double());
    default:
      return compute(float());
  }
}

template <typename T>
at::TensorOptions accumulating(const at::Tensor& like) {
  return like.options().dtype(c10::CppTypeToScalarType<Accumulate<T>>::value);
}

// Whether rows of these matrices can be read 16 bytes at a time.
template <typename T>
bool vectorizes(std::initializer_list<at::Tensor> matrices) {
  for (const auto& matrix : matrices) {
    const auto address = reinterpret_cast<uintptr_t>(matrix.const_data_ptr());
    if (matrix.size(1) * sizeof(T) % 16 != 0 || address % 16 != 0) {
      return false;
    }
  }
  return true;
}

// A loss per row, reduced; sums run in float64.
inline at::Tensor reduced(const at::Tensor& losses, Reduction reduction) {
  if (reduction == Reduction::kNone) {
    return losses.clone();
  }
  const double divisor = reduction == Reduction::kMean ? std::max<int64_t>(losses.size(0), 1) : 1;
  return (at::sum(losses, at::kDouble) / divisor).to(losses.scalar_type());
}

}  // namespace mcfa_fast
