// Runs the CUDA kernels' own source on the CPU, for the tests: the names of CUDA that the kernels use (see
// csrc/common/device.cuh) implemented so that mistakes show.
//
// Every thread of a block is a fiber with its own stack. A fiber runs until it needs the others (a barrier, a shuffle,
// a matrix instruction); which one runs next is set by the order: ascending, descending or random. Shared memory is
// NaN when a block starts, asynchronous copies land at once or as late as the program allows, and a thread that misses a
// barrier or takes another path through a warp's instruction is an error.
//
// For tests of the harness itself, a fault can be planted at one call: a barrier or a fence left out, a copy or a product
// that is not waited for, an address 16 bytes or one number off. The call is named by its source line, so the kernels carry
// no trace of it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define MCFA_DEVICE_ASSERT(condition, message) \
  do {                                         \
    if (!(condition)) {                        \
      ::harness::fail(message);                \
    }                                          \
  } while (false)

struct dim3 {
  unsigned x;
  unsigned y;
  unsigned z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace harness {

// Ends the launch with an error; the fibers still alive are dropped.
[[noreturn]] void fail(const std::string& message);

struct Position {
  dim3 thread{0, 0, 0};
  dim3 block{0, 0, 0};
  dim3 threads;
  dim3 blocks;
};
const Position& position();

char* shared_memory();
// Whether [address, address + size) lies in the block's shared memory; an error otherwise.
void check_shared(const void* address, size_t size, const char* what);

enum class Fault { kNone, kMissingBarrier, kMissingWait, kWrongAddress, kMissingFence };
constexpr int kFaults = 5;
// Whether the planted fault is here. Every call of `fault`'s kind is remembered under its line.
bool faulty(Fault fault, const char* file, int line);

void block_barrier();

// Hands `size` bytes to the warp and returns those of all 32 lanes once each has handed over as many in the same
// kind of instruction; valid until the next one.
const char* exchange(const char* kind, const void* value, size_t size);

void copy_later(void* shared, const void* global, size_t size, bool valid);
void commit_copies();
void wait_for_copies(int pending);

}  // namespace harness

#define threadIdx (::harness::position().thread)
#define blockIdx (::harness::position().block)
#define blockDim (::harness::position().threads)
#define gridDim (::harness::position().blocks)

namespace mcfa_fast {

inline char* shared_memory() {
  return harness::shared_memory();
}

inline void barrier(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (!harness::faulty(harness::Fault::kMissingBarrier, file, line)) {
    harness::block_barrier();
  }
}

template <typename T>
T shuffle_xor(T value, int mask) {
  T all[32];
  std::memcpy(all, harness::exchange("shuffle", &value, sizeof(T)), sizeof(all));
  return all[(threadIdx.x % 32) ^ mask];
}

inline void atomic_add(int64_t* address, int64_t value) {
  *address += value;
}

inline void atomic_add(float* address, float value) {
  *address += value;
}

inline float exp2_fast(float x) {
  const float result = std::exp2(x);
  return result < 1.17549435e-38f ? 0.f : result;
}
inline double exp2_fast(double x) {
  return std::exp2(x);
}

inline void copy_async(
    void* shared, const void* global, bool valid, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  const bool off = harness::faulty(harness::Fault::kWrongAddress, file, line);
  const auto from = reinterpret_cast<uintptr_t>(global) ^ (off ? 16 : 0);
  harness::copy_later(shared, reinterpret_cast<const void*>(from), 16, valid);
}
inline void copy_async_number(
    float* shared, const float* global, bool valid, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  const bool off = harness::faulty(harness::Fault::kWrongAddress, file, line);
  harness::copy_later(shared, reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(global) ^ (off ? 4 : 0)), 4, valid);
}
inline void copy_async_commit() {
  harness::commit_copies();
}
template <int pending>
void copy_async_wait(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (!harness::faulty(harness::Fault::kMissingWait, file, line)) {
    harness::wait_for_copies(pending);
  }
}

namespace harness_detail {

// As the PTX manual draws the fragments: lane l holds row l / 4, columns l % 4 * 2 and the next; transposed likewise.
inline void load_matrices(uint32_t (&fragment)[4], const void* row, bool transposed) {
  harness::check_shared(row, 16, "ldmatrix");
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) {
    harness::fail("ldmatrix: an address that is not a multiple of 16");
  }
  const void* rows[32];
  std::memcpy(rows, harness::exchange(transposed ? "ldmatrix.trans" : "ldmatrix", &row, sizeof(row)), sizeof(rows));
  const int lane = threadIdx.x % 32;
  for (int matrix = 0; matrix < 4; ++matrix) {
    uint16_t pair[2];
    for (int k = 0; k < 2; ++k) {
      const int along = lane % 4 * 2 + k;
      const int across = lane / 4;
      const auto* from = static_cast<const uint16_t*>(rows[matrix * 8 + (transposed ? along : across)]);
      pair[k] = from[transposed ? across : along];
    }
    fragment[matrix] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
  }
}

inline float to_float(bfloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}
inline float to_float(float16 value) {
  _Float16 half;
  std::memcpy(&half, &value.bits, sizeof(half));
  return half;
}
inline uint16_t round_to(bfloat16, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if (value != value) {
    return 0x7fff;
  }
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline uint16_t round_to(float16, float value) {
  const _Float16 half = static_cast<_Float16>(value);
  uint16_t bits;
  std::memcpy(&bits, &half, sizeof(bits));
  return bits;
}

}  // namespace harness_detail

inline void load_matrices(
    uint32_t (&fragment)[4], const void* row, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  const bool off = harness::faulty(harness::Fault::kWrongAddress, file, line);
  harness_detail::load_matrices(fragment, static_cast<const char*>(row) + (off ? 16 : 0), false);
}
inline void load_matrices_transposed(
    uint32_t (&fragment)[4], const void* row, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  const bool off = harness::faulty(harness::Fault::kWrongAddress, file, line);
  harness_detail::load_matrices(fragment, static_cast<const char*>(row) + (off ? 16 : 0), true);
}

// mma.m16n8k16: a[i] holds row l / 4 (+ 8 for odd i), columns l % 4 * 2 (+ 8 for i >= 2) and the next; b[i] column
// l / 4, rows l % 4 * 2 (+ 8 for i = 1) and the next; c row l / 4 (+ 8 for i >= 2), columns l % 4 * 2 and the next.
template <typename T>
void multiply_accumulate(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Operands {
    uint32_t a[4];
    uint32_t b[2];
  } mine{{a[0], a[1], a[2], a[3]}, {b0, b1}};
  const auto* all = reinterpret_cast<const Operands*>(harness::exchange("mma", &mine, sizeof(mine)));
  const auto element = [](uint32_t two, int k) {
    return harness_detail::to_float(T{static_cast<uint16_t>(two >> 16 * k)});
  };
  const int lane = threadIdx.x % 32;
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8;
    const int column = lane % 4 * 2 + i % 2;
    float sum = 0;
    for (int k = 0; k < 16; ++k) {
      const float from_a = element(all[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2], k % 2);
      const float from_b = element(all[column * 4 + k % 8 / 2].b[k / 8], k % 2);
      sum += from_a * from_b;
    }
    c[i] += sum;
  }
}

template <typename T>
uint32_t pack(float low, float high) {
  return harness_detail::round_to(T(), low) | static_cast<uint32_t>(harness_detail::round_to(T(), high)) << 16;
}

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
inline float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline double widen(double value) {
  return value;
}
inline float widen(float value) {
  return value;
}
inline float widen(bfloat16 value) {
  return harness_detail::to_float(value);
}
inline float widen(float16 value) {
  return harness_detail::to_float(value);
}

using std::log;
using std::log2;
using std::sqrt;

}  // namespace mcfa_fast
