// Shared memory, and what lands there or reads from there later: asynchronous copies and Hopper's products.
#include "fibers.h"

#include <algorithm>
#include <cstring>

#include "../../csrc/common/warpgroup.cuh"

namespace harness {

namespace {

std::vector<char> shared;
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

}  // namespace

void allocate_shared(int64_t bytes) {
  shared.assign(bytes + 2 * kGuard + kAlignment + 16, 0);
}

void clear_shared() {
  std::fill(shared.begin(), shared.end(), static_cast<char>(kPoison));
  unpublished.assign(shared_size() / 16 + 1, -1);
}

bool guards_untouched() {
  const char* begin = shared_begin();
  const auto untouched = [](char byte) { return static_cast<unsigned char>(byte) == kPoison; };
  return std::all_of(begin - kGuard, begin, untouched) &&
      std::all_of(begin + shared_size(), begin + shared_size() + kGuard, untouched);
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

}  // namespace harness
