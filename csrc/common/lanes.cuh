// Rows read by groups of lanes, each lane kVector neighbouring elements at a time (16 bytes where the width allows).
#pragma once

#include "device.cuh"

namespace mcfa_fast {

template <typename T>
constexpr int kWidestVector = 16 / sizeof(T);

template <typename T, int kVector>
struct alignas(sizeof(T) * kVector) Lanes {
  T values[kVector];

  static __device__ __forceinline__ Lanes load(const T* from) {
    return *reinterpret_cast<const Lanes*>(from);
  }
  __device__ __forceinline__ void store(T* to) const {
    *reinterpret_cast<Lanes*>(to) = *this;
  }
};

// Lanes that share a row of `width` elements: a power of two up to a warp.
inline int lanes_per_row(int64_t width, int vector) {
  int lanes = 1;
  while (lanes < 32 && lanes * vector < width) {
    lanes *= 2;
  }
  return lanes;
}

}  // namespace mcfa_fast
