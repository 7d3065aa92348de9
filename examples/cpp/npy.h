// Reads a .npy file of float32 rows [N, F] a few rows at a time.
//
// Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#pragma once

#include <algorithm>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

class NpyRows {
 public:
  explicit NpyRows(const std::string& path) : path_(path), file_(path, std::ios::binary) {
    if (!file_) fail("cannot be opened");
    unsigned char start[8];
    read(start, sizeof start);
    if (std::memcmp(start, "\x93NUMPY", 6) != 0) fail("not a .npy file");
    if (start[6] < 1 || start[6] > 3) fail("unknown version of the .npy format");
    unsigned char size[4] = {0, 0, 0, 0};
    const int size_bytes = start[6] == 1 ? 2 : 4;
    read(size, size_bytes);
    const uint32_t header_bytes = size[0] | size[1] << 8 | size[2] << 16 | uint32_t{size[3]} << 24;
    if (header_bytes > 65536) fail("its header is too long");
    std::string header(header_bytes, ' ');
    read(header.data(), header.size());
    parse(header);

    const uint64_t data_bytes = std::filesystem::file_size(path) - (8 + size_bytes + header_bytes);
    if (columns_ != 0 && rows_ > std::numeric_limits<uint64_t>::max() / sizeof(float) / columns_) {
      fail("its shape is too large");
    }
    if (data_bytes != rows_ * columns_ * sizeof(float)) fail("its size does not fit its shape");
  }

  uint64_t rows() const { return rows_; }
  uint64_t columns() const { return columns_; }

  // The next `count` rows, or as many as are left.
  std::vector<float> next(uint64_t count) {
    count = std::min(count, rows_ - done_);
    std::vector<float> values(count * columns_);
    read(values.data(), values.size() * sizeof(float));
    done_ += count;
    return values;
  }

 private:
  // The header is a Python dictionary with its keys in alphabetical order.
  void parse(const std::string& header) {
    char type[8], order[8];
    int length = 0;
    std::sscanf(header.c_str(),
                "{'descr': '%7[^']', 'fortran_order': %7[A-Za-z], 'shape': (%18" SCNu64 ", %18" SCNu64 "), }%n",
                type, order, &rows_, &columns_, &length);
    if (length == 0) fail("expected an array [N, F]");
    if (std::strcmp(type, "<f4") != 0) fail(std::string("expected float32, got ") + type);
    if (std::strcmp(order, "False") != 0) fail("expected rows that are stored one after another");
  }

  void read(void* target, size_t bytes) {
    if (!file_.read(static_cast<char*>(target), static_cast<std::streamsize>(bytes))) {
      fail("it is cut short");
    }
  }

  [[noreturn]] void fail(const std::string& reason) const {
    throw std::runtime_error(path_ + ": " + reason);
  }

  std::string path_;
  std::ifstream file_;
  uint64_t rows_ = 0;
  uint64_t columns_ = 0;
  uint64_t done_ = 0;
};
