// Hopper's matrix instructions (wgmma, sm_90a): a warpgroup, four warps that begin at a multiple of four, multiplies
// 64 rows, from shared memory or registers, by 64 columns from shared memory while its threads do something else.
//
// Operands in shared memory are tiles of 64 columns of 16-bit elements (128 bytes a row, rows one after the other,
// from an address that is a multiple of 1024), in which 16-byte piece p of row r lies at place p ^ (r % 8): the manual's
// swizzle of 128 bytes. PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions".
#pragma once

#include <type_traits>

#include "device.cuh"

namespace mcfa_fast {

constexpr int kPanelWidth = 64;  // elements of a row of such a tile

// The place of element (row, column) of a tile.
__device__ __forceinline__ int swizzled(int row, int column) {
  return row * kPanelWidth + (column ^ (row & 7) * 8);
}

// The instructions' descriptor of a tile, or of what begins at (row, column) of it: address and both strides in units of 16
// bytes, and 1 in the top bits for the swizzle of 128 bytes. Groups of 8 rows are 1024 bytes apart; operands that are 64
// elements wide have no use for the other stride. Places are those without a swizzle, which acts on the addresses that the
// instruction forms.
struct TileDescriptor {
  uint64_t bits;

  static __device__ __forceinline__ TileDescriptor of(uint32_t address) {
    return {(address & 0x3ffff) >> 4 | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62};
  }
  __device__ __forceinline__ TileDescriptor at(int row, int column) const {
    return {bits + static_cast<uint32_t>(row * kPanelWidth + column) * 2 / 16};
  }
};

}  // namespace mcfa_fast

#ifdef MCFA_CUDA_HARNESS
#include "harness_warpgroup.h"
#else

namespace mcfa_fast {

// Whether the code is compiled for a GPU that has these instructions.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
constexpr bool kHasWarpgroups = true;
#else
constexpr bool kHasWarpgroups = false;
#endif

// A pointer's address in shared memory, as the instructions count it.
__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Makes what this thread has written to shared memory, by copies too, visible to the matrix unit once a barrier follows.
__device__ __forceinline__ void publish_shared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Orders the registers of the products to come behind all earlier use of them; before every first product.
__device__ __forceinline__ void warpgroup_begin() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
// Closes a group of products, of which warpgroup_wait waits until at most `pending` are unfinished.
__device__ __forceinline__ void warpgroup_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int pending>
__device__ __forceinline__ void warpgroup_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

// Keeps the compiler from using sums ahead of the wait before, or from changing them after the products behind; and the
// registers of factors from serving for anything else before the wait.
__device__ __forceinline__ void keep_in_place(float (&c)[8][4]) {
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    asm volatile("" : "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])::"memory");
  }
}
__device__ __forceinline__ void keep_in_place(uint32_t (&a)[4]) {
  asm volatile("" : "+r"(a[0]), "+r"(a[1]), "+r"(a[2]), "+r"(a[3])::"memory");
}

// wgmma of TYPE with operands INPUTS, which begin with %33.
#define MCFA_WGMMA(TYPE, INPUTS, ...)                                                                               \
  asm volatile(                                                                                                     \
      "{.reg .pred add;\n"                                                                                          \
      "setp.ne.b32 add, %32, 0;\n"                                                                                  \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE                                                   \
      " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, " \
      "%23, %24, %25, %26, %27, %28, %29, %30, %31}, " INPUTS ";}\n"                                                \
      : "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[0][2]), "+f"(c[0][3]), "+f"(c[1][0]), "+f"(c[1][1]), "+f"(c[1][2]),    \
        "+f"(c[1][3]), "+f"(c[2][0]), "+f"(c[2][1]), "+f"(c[2][2]), "+f"(c[2][3]), "+f"(c[3][0]), "+f"(c[3][1]),    \
        "+f"(c[3][2]), "+f"(c[3][3]), "+f"(c[4][0]), "+f"(c[4][1]), "+f"(c[4][2]), "+f"(c[4][3]), "+f"(c[5][0]),    \
        "+f"(c[5][1]), "+f"(c[5][2]), "+f"(c[5][3]), "+f"(c[6][0]), "+f"(c[6][1]), "+f"(c[6][2]), "+f"(c[6][3]),    \
        "+f"(c[7][0]), "+f"(c[7][1]), "+f"(c[7][2]), "+f"(c[7][3])                                                  \
      : "r"(static_cast<int>(add)), __VA_ARGS__)

// Starts c = a · b^T, or c += a · b^T if `add`, for the 64 rows of a, the 64 of b, and 16 columns of both. Each warp gets 16
// rows of c, laid out as multiply_accumulate has them.
template <typename T>
__device__ __forceinline__ void warpgroup_multiply(float (&c)[8][4], TileDescriptor a, TileDescriptor b, bool add) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    MCFA_WGMMA("bf16", "%33, %34, add, 1, 1, 0, 0", "l"(a.bits), "l"(b.bits));
  } else {
    MCFA_WGMMA("f16", "%33, %34, add, 1, 1, 0, 0", "l"(a.bits), "l"(b.bits));
  }
}

// Starts c += a · b for 64 rows, 64 columns and a depth of 16: each warp has the fragments of 16 rows, a and c laid out as
// multiply_accumulate has them; b are 16 rows.
template <typename T>
__device__ __forceinline__ void warpgroup_accumulate(float (&c)[8][4], const uint32_t (&a)[4], TileDescriptor b) {
  constexpr bool add = true;
  if constexpr (std::is_same_v<T, bfloat16>) {
    MCFA_WGMMA(
        "bf16", "{%33, %34, %35, %36}, %37, add, 1, 1, 1", "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.bits));
  } else {
    MCFA_WGMMA(
        "f16", "{%33, %34, %35, %36}, %37, add, 1, 1, 1", "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.bits));
  }
}
#undef MCFA_WGMMA

}  // namespace mcfa_fast
#endif
