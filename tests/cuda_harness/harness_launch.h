// Stands in for the CUDA side of csrc/common/launch.cuh: operators on CPU tensors whose kernels run in the harness.
#pragma once

#include <ATen/ATen.h>

#include <functional>

#include "harness.h"

#define MCFA_CUDA_LIBRARY mcfa_fast
#define MCFA_CUDA_KEY CPU

namespace harness {

void run(dim3 blocks, int threads, int64_t shared, const std::function<void()>& thread);

// What the tests set; see settings.cpp.
extern int hopper;
extern int64_t block_size;
extern int64_t chunk_columns;
extern int64_t most_symmetric_chunks;

}  // namespace harness

namespace mcfa_fast {

template <typename... Parameters, typename... Arguments>
void launch_blocks(
    void (*kernel)(Parameters...), dim3 grid, int threads, int64_t shared, const Arguments&... arguments) {
  harness::run(grid, threads, shared, [&] { kernel(static_cast<Parameters>(arguments)...); });
}

inline int64_t shared_memory_limit() {
  return 227 * 1024;  // Hopper's
}

inline HopperKernels hopper_kernels() {
  return static_cast<HopperKernels>(harness::hopper);
}
inline void check_hopper() {}

inline int64_t block_size() {
  return harness::block_size;
}
inline int64_t chunk_columns() {
  return harness::chunk_columns;
}

inline int64_t most_symmetric_chunks() {
  return harness::most_symmetric_chunks;
}
inline at::Tensor wide_product(const at::Tensor& a, const at::Tensor& b, at::ScalarType type) {
  return at::mm(a.to(type), b.to(type));
}

}  // namespace mcfa_fast
