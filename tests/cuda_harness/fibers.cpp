// Runs a block: its threads are fibers, which take turns where they need one another.
#include "fibers.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <stdexcept>

#include "../../csrc/common/launch.cuh"

namespace harness {

std::vector<std::vector<std::string>> warpgroups;
Fiber* current = nullptr;

namespace {

std::vector<std::unique_ptr<Fiber>> fibers;  // kept from block to block, for their stacks
std::vector<Warp> warps;
jmp_buf scheduler;
const std::function<void()>* body = nullptr;
std::string error;
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

void run_block(dim3 block, dim3 blocks, int threads) {
  clear_shared();
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
  if (!guards_untouched()) {
    error = "a write outside the shared memory of the block";
  }
}

}  // namespace

bool at_once() {
  return settings.order == Order::kDescending || (settings.order == Order::kRandom && generator() % 2 == 0);
}

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

void run(dim3 blocks, int threads, int64_t shared_bytes, const std::function<void()>& thread) {
  constexpr unsigned kMostInYAndZ = 65535;
  if (shared_bytes > 227 * 1024 || threads < 1 || threads > 1024 || blocks.x == 0 || blocks.y == 0 || blocks.z == 0 ||
      blocks.y > kMostInYAndZ || blocks.z > kMostInYAndZ) {
    throw std::runtime_error("harness: a launch that no GPU takes");
  }
  body = &thread;
  error.clear();
  generator.seed(settings.seed);
  allocate_shared(shared_bytes);
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
