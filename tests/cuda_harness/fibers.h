// What the parts of the harness share: the block that runs, its threads as fibers, and what the tests have set.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../../csrc/common/device.cuh"

namespace harness {

// Also decides when an asynchronous copy lands: as late as it may, at once, or at random one or the other.
enum class Order { kAscending, kDescending, kRandom };

struct Settings {
  Order order = Order::kAscending;
  uint64_t seed = 0;
  Fault fault = Fault::kNone;
  std::string fault_at;  // "file:line", the file as below csrc/
  std::map<std::string, int64_t> calls[kFaults];
};
extern Settings settings;

struct Copy {
  void* shared;
  const void* global;
  size_t size;
  bool valid;
};

enum class State { kReady, kAtBarrier, kInExchange, kDone };

constexpr size_t kStackSize = 256 * 1024;
constexpr size_t kMaxExchange = 32;

struct Fiber {
  std::unique_ptr<char[]> stack{new char[kStackSize]};
  ucontext_t start;
  jmp_buf resume;
  bool started = false;
  State state = State::kReady;
  Position position;
  std::vector<std::vector<Copy>> copies;  // groups, the last still open
  std::vector<std::vector<std::function<void()>>> products;  // likewise
  bool may_multiply = false;  // since a fence
  size_t products_started = 0;
};

// What a warp's lanes hand over. Two slots in turn, so that the next exchange does not overwrite what is being read.
struct Warp {
  const char* kind = nullptr;
  size_t size = 0;
  int arrived = 0;
  int64_t exchanges = 0;
  char slots[2][32 * kMaxExchange];
};

extern std::vector<std::vector<std::string>> warpgroups;  // the products that each has started, in order
extern Fiber* current;

// What happens now, rather than as late as the program allows.
bool at_once();

// The current block's shared memory, NaN all over and between guards, so that a small overrun is noticed too.
void allocate_shared(int64_t bytes);
void clear_shared();
bool guards_untouched();

}  // namespace harness
