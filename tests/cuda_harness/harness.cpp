#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#include "../../csrc/common/launch.cuh"

namespace harness {

int hopper = 0;
int64_t block_size = 64;
int64_t chunk_columns = 32;

namespace {

// Also decides when an asynchronous copy lands: as late as it may, at once, or at random one or the other.
enum class Order { kAscending, kDescending, kRandom };

struct Settings {
  Order order = Order::kAscending;
  uint64_t seed = 0;
  Fault fault = Fault::kNone;
  std::string fault_at;             // "file:line"
  std::map<std::string, int64_t> calls[kFaults];
};
Settings settings;

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

std::vector<std::unique_ptr<Fiber>> fibers;  // kept from block to block, for their stacks
std::vector<Warp> warps;
std::vector<std::vector<std::string>> warpgroups;  // what each has started, in order
Fiber* current = nullptr;
jmp_buf scheduler;
const std::function<void()>* body = nullptr;
std::string error;
std::vector<char> shared;
int threads_in_block = 0;
std::mt19937_64 generator;

void yield() {
  if (_setjmp(current->resume) == 0) {
    _longjmp(scheduler, 1);
  }
}

void enter() {
  (*body)();
  current->state = State::kDone;
  _longjmp(scheduler, 1);
}

void resume(Fiber& fiber) {
  current = &fiber;
  if (_setjmp(scheduler) != 0) {
    return;
  }
  if (fiber.started) {
    _longjmp(fiber.resume, 1);
  }
  fiber.started = true;
  getcontext(&fiber.start);
  fiber.start.uc_stack.ss_sp = fiber.stack.get();
  fiber.start.uc_stack.ss_size = kStackSize;
  fiber.start.uc_link = nullptr;
  makecontext(&fiber.start, enter, 0);
  setcontext(&fiber.start);
}

// Who wrote each 16 bytes of shared memory by a copy that the matrix unit may not see yet: a thread's number, or -1.
std::vector<int> unpublished;

void perform(Fiber& fiber, const std::vector<Copy>& copies) {
  for (const auto& copy : copies) {
    if (copy.valid) {
      std::memcpy(copy.shared, copy.global, copy.size);
    } else {
      std::memset(copy.shared, 0, copy.size);
    }
    const auto place = static_cast<char*>(copy.shared) - shared_memory();
    unpublished[place / 16] = static_cast<int>(fiber.position.thread.x);
  }
}

// What happens now, rather than as late as the program allows.
bool at_once() {
  return settings.order == Order::kDescending || (settings.order == Order::kRandom && generator() % 2 == 0);
}

// The block's shared memory lies between guards, so that a small overrun is noticed too.
constexpr size_t kGuard = 256;
constexpr unsigned char kPoison = 0xff;  // NaN in every floating dtype

// It begins 16 bytes after a multiple of 1024, for a kernel cannot count on more.
constexpr size_t kAlignment = 1024;

char* shared_begin() {
  const auto address = reinterpret_cast<uintptr_t>(shared.data()) + kGuard;
  return reinterpret_cast<char*>((address + kAlignment - 1) / kAlignment * kAlignment + 16);
}

size_t shared_size() {
  return shared.size() - 2 * kGuard - kAlignment - 16;
}

void run_block(dim3 block, dim3 blocks, int threads) {
  std::fill(shared.begin(), shared.end(), static_cast<char>(kPoison));
  unpublished.assign(shared_size() / 16 + 1, -1);
  threads_in_block = threads;
  warps.assign((threads + 31) / 32, Warp());
  warpgroups.assign((threads + 127) / 128, {});
  while (static_cast<int>(fibers.size()) < threads) {
    fibers.push_back(std::make_unique<Fiber>());
  }
  for (int thread = 0; thread < threads; ++thread) {
    auto& fiber = *fibers[thread];
    fiber.started = false;
    fiber.state = State::kReady;
    fiber.position.thread = dim3(thread, 0, 0);
    fiber.position.block = block;
    fiber.position.threads = dim3(threads, 1, 1);
    fiber.position.blocks = blocks;
    fiber.copies.assign(1, {});
    fiber.products.assign(1, {});
    fiber.may_multiply = false;
    fiber.products_started = 0;
  }
  std::vector<int> order(threads);
  std::iota(order.begin(), order.end(), 0);
  if (settings.order == Order::kDescending) {
    std::reverse(order.begin(), order.end());
  }
  for (;;) {
    if (settings.order == Order::kRandom) {
      std::shuffle(order.begin(), order.end(), generator);
    }
    bool progress = false;
    for (int begin = 0; begin < threads; begin += 32) {
      // In a fixed order each warp runs ahead of the next as far as it can, in random order they interleave.
      bool moved = true;
      while (moved) {
        moved = false;
        for (int k = begin; k < std::min(begin + 32, threads); ++k) {
          auto& fiber = *fibers[order[k]];
          if (fiber.state == State::kReady) {
            resume(fiber);
            progress = moved = true;
            if (!error.empty()) {
              return;
            }
          }
        }
        moved = moved && settings.order != Order::kRandom;
      }
    }
    int done = 0;
    int waiting = 0;
    for (int thread = 0; thread < threads; ++thread) {
      done += fibers[thread]->state == State::kDone;
      waiting += fibers[thread]->state == State::kAtBarrier;
    }
    if (done == threads) {
      break;
    }
    if (done + waiting == threads) {
      if (done > 0) {
        error = "some threads of a block ended while others wait at a barrier";
        return;
      }
      for (int thread = 0; thread < threads; ++thread) {
        fibers[thread]->state = State::kReady;
      }
    } else if (!progress) {
      error = "a warp's threads do not meet: some are in an instruction of the whole warp that others never reach";
      return;
    }
  }
  for (int thread = 0; thread < threads; ++thread) {
    if (fibers[thread]->products.size() > 1 || !fibers[thread]->products.back().empty()) {
      error = "a thread that ended without waiting for its products";
      return;
    }
  }
  const char* begin = shared_begin();
  const auto untouched = [](char byte) { return static_cast<unsigned char>(byte) == kPoison; };
  if (!std::all_of(begin - kGuard, begin, untouched) ||
      !std::all_of(begin + shared_size(), begin + shared_size() + kGuard, untouched)) {
    error = "a write outside the shared memory of the block";
  }
}

}  // namespace

void fail(const std::string& message) {
  if (current == nullptr) {
    throw std::runtime_error(message);
  }
  error = message;
  _longjmp(scheduler, 1);
}

const Position& position() {
  return current->position;
}

char* shared_memory() {
  return shared_begin();
}

void check_shared(const void* address, size_t size, const char* what) {
  const char* begin = shared_begin();
  const char* first = static_cast<const char*>(address);
  if (first < begin || first + size > begin + shared_size()) {
    fail(std::string(what) + ": an address outside the shared memory of the block");
  }
}

bool faulty(Fault fault, const char* file, int line) {
  const char* name = std::strrchr(file, '/');
  const auto at = std::string(name == nullptr ? file : name + 1) + ":" + std::to_string(line);
  ++settings.calls[static_cast<int>(fault)][at];
  return settings.fault == fault && settings.fault_at == at;
}

void block_barrier() {
  current->state = State::kAtBarrier;
  yield();
}

const char* exchange(const char* kind, const void* value, size_t size) {
  auto& warp = warps[current->position.thread.x / 32];
  const int lane = current->position.thread.x % 32;
  const int lanes = std::min(threads_in_block - static_cast<int>(current->position.thread.x) / 32 * 32, 32);
  if (size > kMaxExchange) {
    fail("an exchange of more bytes than the harness has room for");
  }
  if (warp.arrived > 0 && (std::strcmp(warp.kind, kind) != 0 || warp.size != size)) {
    fail(std::string("lanes of one warp are in different instructions: ") + warp.kind + " and " + kind);
  }
  warp.kind = kind;
  warp.size = size;
  char* slot = warp.slots[warp.exchanges % 2];
  std::memcpy(slot + lane * size, value, size);
  if (++warp.arrived < lanes) {
    current->state = State::kInExchange;
    yield();
    return slot;
  }
  warp.arrived = 0;
  ++warp.exchanges;
  const int first = current->position.thread.x / 32 * 32;
  for (int other = 0; other < lanes; ++other) {
    fibers[first + other]->state = State::kReady;
  }
  return slot;
}

void copy_later(void* target, const void* global, size_t size, bool valid) {
  check_shared(target, size, "cp.async");
  if (reinterpret_cast<uintptr_t>(target) % size != 0 || reinterpret_cast<uintptr_t>(global) % size != 0) {
    fail("cp.async: an address that is not a multiple of the size");
  }
  const Copy copy{target, global, size, valid};
  if (at_once()) {
    perform(*current, {copy});
  } else {
    current->copies.back().push_back(copy);
  }
}

void commit_copies() {
  current->copies.emplace_back();
}

void wait_for_copies(int pending) {
  auto& groups = current->copies;
  while (static_cast<int>(groups.size()) - 1 > pending) {
    perform(*current, groups.front());
    groups.erase(groups.begin());
  }
}

void publish_shared() {
  for (int& writer : unpublished) {
    writer = writer == static_cast<int>(current->position.thread.x) ? -1 : writer;
  }
}

uint32_t shared_address(const void* pointer) {
  check_shared(pointer, 0, "wgmma");
  return static_cast<uint32_t>(static_cast<const char*>(pointer) - (shared_begin() - 16));
}

const char* at_shared_address(uint32_t address) {
  const char* pointer = shared_begin() - 16 + address;
  check_shared(pointer, 2, "wgmma");
  if (unpublished[(pointer - shared_begin()) / 16] >= 0) {
    fail("wgmma: shared memory that was copied there without a fence before the barrier");
  }
  return pointer;
}

void begin_products() {
  current->may_multiply = true;
}

void multiply_later(const std::string& operands, std::function<void()> product) {
  if (!current->may_multiply) {
    fail("wgmma: no fence before the first product of a group");
  }
  auto& started = warpgroups[current->position.thread.x / 128];
  const size_t index = current->products_started++;
  if (index == started.size()) {
    started.push_back(operands);
  } else if (started[index] != operands) {
    fail("wgmma: the warps of a warpgroup differ in their products");
  }
  auto& groups = current->products;
  const bool none_before = groups.size() == 1 && groups.back().empty();  // products follow one another
  if (none_before && at_once()) {
    product();
  } else {
    groups.back().push_back(std::move(product));
  }
}

void commit_products() {
  current->may_multiply = false;
  current->products.emplace_back();
}

void wait_for_products(int pending) {
  auto& groups = current->products;
  while (static_cast<int>(groups.size()) - 1 > pending) {
    for (const auto& product : groups.front()) {
      product();
    }
    groups.erase(groups.begin());
  }
}

void run(dim3 blocks, int threads, int64_t shared_bytes, const std::function<void()>& thread) {
  if (shared_bytes > 227 * 1024 || threads > 1024) {
    throw std::runtime_error("a launch that no GPU can take");
  }
  body = &thread;
  error.clear();
  generator.seed(settings.seed);
  shared.assign(shared_bytes + 2 * kGuard + kAlignment + 16, 0);
  for (unsigned z = 0; z < blocks.z; ++z) {
    for (unsigned y = 0; y < blocks.y; ++y) {
      for (unsigned x = 0; x < blocks.x && error.empty(); ++x) {
        run_block(dim3(x, y, z), blocks, threads);
      }
    }
  }
  current = nullptr;
  if (!error.empty()) {
    throw std::runtime_error("harness: " + error);
  }
}

}  // namespace harness

// What the tests call through ctypes.
extern "C" {

__attribute__((visibility("default"))) void harness_set_order(int order, uint64_t seed) {
  harness::settings.order = static_cast<harness::Order>(order);
  harness::settings.seed = seed;
}

__attribute__((visibility("default"))) void harness_set_chunk(int64_t rows, int64_t columns) {
  harness::block_size = rows;
  harness::chunk_columns = columns;
}

__attribute__((visibility("default"))) void harness_plant(int fault, const char* at) {
  harness::settings.fault = static_cast<harness::Fault>(fault);
  harness::settings.fault_at = at;
}

__attribute__((visibility("default"))) void harness_set_hopper(int wanted) {
  harness::hopper = wanted;
}

__attribute__((visibility("default"))) void harness_clear_calls() {
  for (auto& calls : harness::settings.calls) {
    calls.clear();
  }
}

// The lines, separated by spaces, with a call where `fault` could be planted, since the last clear.
__attribute__((visibility("default"))) const char* harness_calls(int fault) {
  static std::string names;
  names.clear();
  for (const auto& [name, count] : harness::settings.calls[fault]) {
    names += (names.empty() ? "" : " ") + name;
  }
  return names.c_str();
}
}
