// Hopper's matrix instructions in the harness: products that read their operand in shared memory when they are started,
// or as late as the program allows; through descriptors, whose bits are taken apart again here.
#pragma once

#include <functional>
#include <string>

#include "harness.h"

namespace harness {

void publish_shared();
// An address in shared memory as the instructions count it, and back for a read of an element.
uint32_t shared_address(const void* pointer);
const char* at_shared_address(uint32_t address);
void begin_products();
// `operands` says what all threads of the warpgroup must start at this point.
void multiply_later(const std::string& operands, std::function<void()> product);
void commit_products();
void wait_for_products(int pending);

}  // namespace harness

namespace mcfa_fast {

constexpr bool kHasWarpgroups = true;

inline void publish_shared(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (!harness::faulty(harness::Fault::kMissingFence, file, line)) {
    harness::publish_shared();
  }
}
inline void warpgroup_begin(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (!harness::faulty(harness::Fault::kMissingFence, file, line)) {
    harness::begin_products();
  }
}
inline void warpgroup_commit() {
  harness::commit_products();
}
template <int pending>
void warpgroup_wait(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (!harness::faulty(harness::Fault::kMissingWait, file, line)) {
    harness::wait_for_products(pending);
  }
}
inline void keep_in_place(float (&)[8][4]) {}
inline void keep_in_place(uint32_t (&)[4]) {}

namespace harness_detail {

// As the PTX manual draws the layouts with a swizzle of 128 bytes: groups of 8 lines of 128 bytes, the descriptor's
// stride apart.
template <typename T>
float element_of(uint64_t descriptor, int line, int along) {
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0) {
    harness::fail("wgmma: a descriptor of another swizzle than that of 128 bytes, or with a base offset");
  }
  const uint32_t stride = (descriptor >> 32 & 0x3fff) << 4;
  const uint32_t address = ((descriptor & 0x3fff) << 4) + line / 8 * stride + line % 8 * 128 + along * 2;
  T element;
  std::memcpy(&element, harness::at_shared_address(address ^ (address >> 7 & 7) << 4), sizeof(element));
  return to_float(element);
}

// The lane's part of the product, later: rows lane / 4 and 8 below of the warp's 16, columns lane % 4 * 2 and the next
// of every 8. row(r, k) and column(k, n) are elements of the factors.
template <typename Row, typename Column>
void multiply_later(const std::string& operands, float (*c)[4], bool add, const Row& row, const Column& column) {
  const int lane = threadIdx.x % 32;
  harness::multiply_later(operands, [=] {
    for (int n = 0; n < 8; ++n) {
      for (int i = 0; i < 4; ++i) {
        float sum = 0;
        for (int k = 0; k < 16; ++k) {
          sum += row(lane / 4 + i / 2 * 8, k) * column(k, n * 8 + lane % 4 * 2 + i % 2);
        }
        c[n][i] = add ? c[n][i] + sum : sum;
      }
    }
  });
}

}  // namespace harness_detail

inline uint32_t shared_address(const void* pointer) {
  return harness::shared_address(pointer);
}

template <typename T>
void warpgroup_multiply(
    float (&c)[8][4], TileDescriptor a, TileDescriptor b, bool add, const char* file = __builtin_FILE(),
    int line = __builtin_LINE()) {
  const bool off = harness::faulty(harness::Fault::kWrongAddress, file, line);
  const uint64_t b_bits = b.bits ^ (off ? 1 : 0);
  const int first_row = threadIdx.x / 32 % 4 * 16;
  harness_detail::multiply_later(
      "rows " + std::to_string(a.bits) + " columns " + std::to_string(b_bits) + (add ? " added" : ""), c, add,
      [=](int r, int k) { return harness_detail::element_of<T>(a.bits, first_row + r, k); },
      [=](int k, int n) { return harness_detail::element_of<T>(b_bits, n, k); });
}

template <typename T>
void warpgroup_accumulate(
    float (&c)[8][4], const uint32_t (&a)[4], TileDescriptor b, const char* file = __builtin_FILE(),
    int line = __builtin_LINE()) {
  const bool off = harness::faulty(harness::Fault::kWrongAddress, file, line);
  const uint64_t b_bits = b.bits ^ (off ? 1 : 0);
  struct Fragments {
    uint32_t of_lane[32][4];
  } all;
  std::memcpy(&all, harness::exchange("wgmma", &a, sizeof(a)), sizeof(all));
  harness_detail::multiply_later(
      "fragments, depth " + std::to_string(b_bits), c, true,
      [=](int r, int k) {
        const uint32_t two = all.of_lane[r % 8 * 4 + k % 8 / 2][r / 8 + k / 8 * 2];
        return harness_detail::to_float(T{static_cast<uint16_t>(two >> 16 * (k % 2))});
      },
      [=](int k, int n) { return harness_detail::element_of<T>(b_bits, k, n); });
}

}  // namespace mcfa_fast
