// Hopper's matrix instructions in the harness: products that read their operand in shared memory when they are started,
// or as late as the program allows; through descriptors, whose bits are taken apart again here.
#pragma once

#include <functional>

#include "harness.h"

namespace harness {

void publish_shared();
// An address in shared memory as the instructions count it, and back for a read of an element.
uint32_t shared_address(const void* pointer);
const char* at_shared_address(uint32_t address);
void begin_products();
void multiply_later(std::function<void()> product);
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

// As the PTX manual draws the layouts with a swizzle of 128 bytes: groups of 8 lines of 128 bytes, the stride of the
// descriptor apart. A line holds the depth of one column of the product, or the columns at one depth.
template <typename T, Operand kOperand>
void warpgroup_multiply(
    float (&c)[8][4], const uint32_t (&a)[4], const T* tile, int row, int column, bool add,
    const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  const bool off = harness::faulty(harness::Fault::kWrongAddress, file, line);
  struct Operands {
    uint64_t descriptor;
    uint32_t a[4];
    bool add;
  } mine{describe(harness::shared_address(tile + row * kPanelWidth + column) ^ (off ? 16 : 0)), {a[0], a[1], a[2], a[3]}, add};
  const auto* all = reinterpret_cast<const Operands*>(harness::exchange("wgmma", &mine, sizeof(mine)));
  struct Rows {
    float value[2][16];  // of the lane's two rows of a
  } rows;
  const int lane = threadIdx.x % 32;
  for (int other = 0; other < 32; ++other) {
    if (all[other].descriptor != mine.descriptor || all[other].add != add) {
      harness::fail("wgmma: lanes that differ in their descriptors");
    }
  }
  for (int half = 0; half < 2; ++half) {
    for (int k = 0; k < 16; ++k) {
      const uint32_t two = all[lane / 4 * 4 + k % 8 / 2].a[half + k / 8 * 2];
      rows.value[half][k] = harness_detail::to_float(T{static_cast<uint16_t>(two >> 16 * (k % 2))});
    }
  }
  const uint64_t descriptor = mine.descriptor;
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0) {
    harness::fail("wgmma: a descriptor of another swizzle than that of 128 bytes, or with a base offset");
  }
  float(*sums)[4] = c;
  harness::multiply_later([=] {
    const uint32_t start = (descriptor & 0x3fff) << 4;
    const uint32_t stride = (descriptor >> 32 & 0x3fff) << 4;
    for (int n = 0; n < 64; ++n) {
      const int in_pair = n % 8 - lane % 4 * 2;
      if (in_pair != 0 && in_pair != 1) {
        continue;  // another lane's
      }
      for (int half = 0; half < 2; ++half) {
        float sum = 0;
        for (int k = 0; k < 16; ++k) {
          const int line = kOperand == Operand::kRowsAreColumns ? n : k;
          const int along = kOperand == Operand::kRowsAreColumns ? k : n;
          const uint32_t address = start + line / 8 * stride + line % 8 * 128 + along * 2;
          T element;
          std::memcpy(&element, harness::at_shared_address(address ^ (address >> 7 & 7) << 4), sizeof(element));
          sum += rows.value[half][k] * harness_detail::to_float(element);
        }
        float& to = sums[n / 8][half * 2 + in_pair];
        to = add ? to + sum : sum;
      }
    }
  });
}

}  // namespace mcfa_fast
