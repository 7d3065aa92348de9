// How work on the rows of a matrix is cut for the threads of a CPU.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>

namespace mcfa_fast {

// Rows of `width` elements that are worth another thread.
inline int64_t rows_per_task(int64_t width) {
  return std::max<int64_t>(at::internal::GRAIN_SIZE / std::max<int64_t>(width, 1), 1);
}

}  // namespace mcfa_fast
