// What the tests set and read, through ctypes.
#include <cstring>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>

#include "fibers.h"
#include "../../csrc/common/launch.cuh"

namespace harness {

Settings settings;
int hopper = 0;
int64_t block_size = 64;
int64_t chunk_columns = 32;
int64_t most_symmetric_chunks = 64;

namespace {

// Below csrc, the same by whichever path a header was included.
const std::string& place_of(const char* file, int line) {
  static std::map<std::pair<const char*, int>, std::string> places;
  auto& place = places[{file, line}];
  if (place.empty()) {
    const char* below = std::strstr(file, "csrc/");
    const std::filesystem::path path(below == nullptr ? file : below + 5);
    place = path.lexically_normal().string() + ":" + std::to_string(line);
  }
  return place;
}

}  // namespace

bool faulty(Fault fault, const char* file, int line) {
  const auto& at = place_of(file, line);
  ++settings.calls[static_cast<int>(fault)][at];
  return settings.fault == fault && settings.fault_at == at;
}

}  // namespace harness

extern "C" {

__attribute__((visibility("default"))) void harness_set_order(int order, uint64_t seed) {
  harness::settings.order = static_cast<harness::Order>(order);
  harness::settings.seed = seed;
}

__attribute__((visibility("default"))) void harness_set_chunk(int64_t rows, int64_t columns) {
  harness::block_size = rows;
  harness::chunk_columns = columns;
}

__attribute__((visibility("default"))) void harness_set_symmetric_chunks(int64_t most) {
  harness::most_symmetric_chunks = most;
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

// Whether the harness takes a launch of an empty kernel on such a grid.
__attribute__((visibility("default"))) int harness_try_grid(unsigned x, unsigned y, unsigned z) {
  try {
    harness::run(dim3(x, y, z), 32, 0, [] {});
    return 1;
  } catch (const std::runtime_error&) {
    return 0;
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
