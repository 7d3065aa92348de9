// Rows cut into tiles, and the order in which pairs of tiles are visited.
//
// Pairs come in rounds. The pairs of one round share no tile, so that threads may add to the sums
// and gradients of both tiles of a pair without locks, and every sum is added up in the order of the
// rounds: results do not depend on which thread takes which pair.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <optional>

namespace mcfa_fast {

struct Tiling {
  int64_t rows;
  int64_t tile;

  // One tile for few rows. Else tiles that fit the cache, yet at least four of them for threads to share once there are
  // 256 rows, and all of about one size.
  static Tiling of(int64_t rows) {
    constexpr int64_t kSingle = 128;
    constexpr int64_t kLargest = 256;
    constexpr int64_t kSmallest = 64;
    if (rows <= kSingle) {
      return {rows, kSingle};
    }
    const int64_t count = at::divup(rows, std::clamp(at::divup(rows, 4), kSmallest, kLargest));
    return {rows, at::divup(at::divup(rows, count), 16) * 16};
  }

  int64_t count() const {
    return at::divup(rows, tile);
  }
  int64_t begin(int64_t index) const {
    return index * tile;
  }
  int64_t size(int64_t index) const {
    return std::min(tile, rows - begin(index));
  }
};

struct TilePair {
  int64_t row;
  int64_t column;
  int64_t replica = 0;  // which copy of the column tile's sums the pair adds to
};

// Each unordered pair of tiles once: first every tile with itself, then a round-robin tournament
// (circle method: one tile stays in place, the others turn around it).
class SymmetricSchedule {
 public:
  explicit SymmetricSchedule(int64_t tiles) : tiles_(tiles), seats_(tiles + tiles % 2) {}

  int64_t rounds() const {
    return tiles_ == 0 ? 0 : seats_;
  }
  int64_t width(int64_t round) const {
    return round == 0 ? tiles_ : seats_ / 2;
  }
  std::optional<TilePair> pair(int64_t round, int64_t place) const {
    if (round == 0) {
      return TilePair{place, place};
    }
    const int64_t turning = seats_ - 1;
    const int64_t left = place == 0 ? turning : (round + place) % turning;
    const int64_t right = (round + turning - place) % turning;
    if (left >= tiles_ || right >= tiles_) {
      return std::nullopt;  // an odd number of tiles leaves one out in every round
    }
    return TilePair{std::min(left, right), std::max(left, right)};
  }

 private:
  int64_t tiles_;
  int64_t seats_;
};

// Each pair of a row tile and a column tile once. Few column tiles would leave threads idle, so their
// sums are kept in `replicas` copies, each serving its own share of the row tiles.
class CrossSchedule {
 public:
  static constexpr int64_t kWidth = 32;  // pairs at once

  CrossSchedule(int64_t row_tiles, int64_t column_tiles, int64_t pairs_at_once = kWidth)
      : row_tiles_(row_tiles),
        column_tiles_(column_tiles),
        replicas_(
            column_tiles == 0
                ? 1
                : std::clamp<int64_t>(pairs_at_once / column_tiles, 1, std::max<int64_t>(row_tiles, 1))) {}

  int64_t replicas() const {
    return replicas_;
  }
  int64_t rounds() const {
    return column_tiles_ == 0 ? 0 : at::divup(at::divup(row_tiles_, replicas_), column_tiles_) * column_tiles_;
  }
  int64_t width(int64_t) const {
    return replicas_ * column_tiles_;
  }
  std::optional<TilePair> pair(int64_t round, int64_t place) const {
    const int64_t replica = place / column_tiles_;
    const int64_t column = place % column_tiles_;
    const int64_t turn = round / column_tiles_ * column_tiles_ + (column + round) % column_tiles_;
    const int64_t row = replica + replicas_ * turn;
    return row < row_tiles_ ? std::optional(TilePair{row, column, replica}) : std::nullopt;
  }

 private:
  int64_t row_tiles_;
  int64_t column_tiles_;
  int64_t replicas_;
};

// Calls visit(pair, thread) for every pair of the schedule.
template <typename Schedule, typename Visit>
void for_each_pair(const Schedule& schedule, const Visit& visit) {
  for (int64_t round = 0; round < schedule.rounds(); ++round) {
    at::parallel_for(0, schedule.width(round), 1, [&](int64_t begin, int64_t end) {
      for (int64_t place = begin; place < end; ++place) {
        if (const auto pair = schedule.pair(round, place)) {
          visit(*pair, at::get_thread_num());
        }
      }
    });
  }
}

}  // namespace mcfa_fast
