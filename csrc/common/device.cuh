// What the kernels use of the GPU beyond plain C++: barriers, shuffles, asynchronous copies, matrix instructions,
// fast exponentials and the 16-bit types. Instructions are those of sm_80 (Ampere) and later.
//
// The kernels' source uses nothing else of CUDA, so that the tests can compile it for the CPU
// (MCFA_CUDA_HARNESS; tests/cuda_harness implements the same names there).
#pragma once

#include <cstdint>

namespace mcfa_fast {

struct float16 {
  uint16_t bits;
};
struct bfloat16 {
  uint16_t bits;
};

// The dtype that sums over T are accumulated in.
template <typename T>
struct AccumulateAs {
  using type = float;
};
template <>
struct AccumulateAs<double> {
  using type = double;
};
template <typename T>
using Accumulate = typename AccumulateAs<T>::type;

}  // namespace mcfa_fast

#ifdef MCFA_CUDA_HARNESS
#include "harness.h"
#else

// Device assertions stay on in release builds: they stand in for the checks that would need a synchronisation.
#undef NDEBUG
#include <cassert>
#define MCFA_DEVICE_ASSERT(condition, message) assert((condition) && message)

namespace mcfa_fast {

// The block's dynamic shared memory.
__device__ __forceinline__ char* shared_memory() {
  extern __shared__ __align__(16) char memory[];
  return memory;
}

__device__ __forceinline__ void barrier() {
  __syncthreads();
}

template <typename T>
__device__ __forceinline__ T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}

__device__ __forceinline__ void atomic_add(int64_t* address, int64_t value) {
  atomicAdd(reinterpret_cast<unsigned long long*>(address), static_cast<unsigned long long>(value));
}

__device__ __forceinline__ void atomic_add(float* address, float value) {
  atomicAdd(address, value);
}

// 2^x to 2 ulp, subnormals flushed to 0.
__device__ __forceinline__ float exp2_fast(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
__device__ __forceinline__ double exp2_fast(double x) {
  return exp2(x);
}

// 16 bytes from global to shared memory without passing through registers; zeros unless `valid`.
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool valid) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int size = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(size) : "memory");
}
// The same for one number.
__device__ __forceinline__ void copy_async_number(float* shared, const float* global, bool valid) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int size = valid ? 4 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(global), "r"(size) : "memory");
}
__device__ __forceinline__ void copy_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most `pending` of this thread's groups of copies are under way.
template <int pending>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// Four 8x8 matrices of 16-bit elements, lane l giving the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices(uint32_t (&fragment)[4], const void* row) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&fragment)[4], const void* row) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(address)
               : "memory");
}

// c += a · b for fragments of a 16x16, a 16x8 and a 16x8 matrix.
template <typename T>
__device__ __forceinline__ void multiply_accumulate(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
__device__ __forceinline__ void multiply_accumulate<bfloat16>(
    float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void multiply_accumulate<float16>(
    float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two values rounded to T, the first in the low half.
template <typename T>
__device__ __forceinline__ uint32_t pack(float low, float high);
template <>
__device__ __forceinline__ uint32_t pack<bfloat16>(float low, float high) {
  uint32_t result;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  return result;
}
template <>
__device__ __forceinline__ uint32_t pack<float16>(float low, float high) {
  uint32_t result;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  return result;
}

__device__ __forceinline__ uint32_t bits_of(float value) {
  return __float_as_uint(value);
}
__device__ __forceinline__ float from_bits(uint32_t bits) {
  return __uint_as_float(bits);
}

__device__ __forceinline__ double widen(double value) {
  return value;
}
__device__ __forceinline__ float widen(float value) {
  return value;
}
__device__ __forceinline__ float widen(bfloat16 value) {
  return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
}
__device__ __forceinline__ float widen(float16 value) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
}

}  // namespace mcfa_fast
#endif

namespace mcfa_fast {

// e^x.
template <typename A>
__device__ __forceinline__ A exp_fast(A x) {
  return exp2_fast(x * A(1.4426950408889634));
}

// 2^x for |x| < 126 to 3e-6 of itself, without the unit for special functions: 2^n for the nearest integer n, times the
// minimax polynomial of degree 4 of 2^(x - n).
__device__ __forceinline__ float exp2_polynomial(float x) {
  constexpr float kToInteger = 12582912.f;  // 1.5 * 2^23: what is added to it loses its fraction
  const float integer = x + kToInteger;
  const float fraction = x - (integer - kToInteger);
  float power = 0.009570101911f;
  power = power * fraction + 0.05591786032f;
  power = power * fraction + 0.2402474483f;
  power = power * fraction + 0.6931218147f;
  power = power * fraction + 0.9999992614f;
  return from_bits(bits_of(power) + (bits_of(integer) << 23));
}

// `value` rounded to T.
template <typename T>
__device__ __forceinline__ T narrow(Accumulate<T> value) {
  if constexpr (sizeof(T) == 2) {
    return {static_cast<uint16_t>(pack<T>(value, 0.f))};
  } else {
    return value;
  }
}

// The sum of `value` over the lanes of a warp, in each of them.
template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
  for (int mask = 16; mask > 0; mask /= 2) {
    value += shuffle_xor(value, mask);
  }
  return value;
}

// The same for the threads of a block of `warps` warps; `scratch` holds a value for each of them.
template <typename T>
__device__ __forceinline__ T block_sum(T value, T* scratch, int warps) {
  value = warp_sum(value);
  barrier();
  if (threadIdx.x % 32 == 0) {
    scratch[threadIdx.x / 32] = value;
  }
  barrier();
  T total = 0;
  for (int warp = 0; warp < warps; ++warp) {
    total += scratch[warp];
  }
  return total;
}

template <typename T>
__device__ __forceinline__ T block_max(T value, T* scratch, int warps) {
  for (int mask = 16; mask > 0; mask /= 2) {
    const T other = shuffle_xor(value, mask);
    value = other > value ? other : value;
  }
  barrier();
  if (threadIdx.x % 32 == 0) {
    scratch[threadIdx.x / 32] = value;
  }
  barrier();
  T largest = scratch[0];
  for (int warp = 1; warp < warps; ++warp) {
    largest = scratch[warp] > largest ? scratch[warp] : largest;
  }
  return largest;
}

// The thread's number in the grid, and the warp's.
__device__ __forceinline__ int64_t global_thread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ int64_t global_warp() {
  return global_thread() / 32;
}

}  // namespace mcfa_fast
