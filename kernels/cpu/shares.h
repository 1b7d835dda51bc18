// Division of sparse ratings among threads: users by the work they are, items by how often they are rated.

#pragma once

#include <algorithm>
#include <vector>

#include "entries.h"

namespace mf {

constexpr int64_t ROW_WORK = 8;         // of a user, beside their entries, in entries
constexpr int64_t SAMPLE_SIZE = 1024;   // entries by which the items are divided, per share but at most in all
constexpr double SHARE_WORK = 1 << 19;  // multiply-adds per matrix product that make a share worth a thread

// A place between entries: before entry `entry`, which belongs to user `user`. Inside their entries a user is split.
struct Place {
    int64_t user, entry;
};

// Returns where share `share` of `shares` of the users begins, each as much work as the others.
inline Place share_begin(const Entries &entries, int64_t users, int64_t share, int64_t shares) {
    const auto work_before = [&](int64_t user) { return entries.begin(user) + ROW_WORK * user; };
    const int64_t target = int64_t(double(work_before(users)) * double(share) / double(shares));
    int64_t low = 0, high = users;  // the last user whose work begins at or before the target
    while (low < high) {
        const int64_t middle = high - (high - low) / 2;
        if (work_before(middle) <= target) low = middle;
        else high = middle - 1;
    }
    if (low == users || work_before(low) == target) return {low, entries.begin(low)};
    const int64_t entry = target - ROW_WORK * low, next = entries.begin(low + 1);
    if (entry >= next) return {low + 1, next};
    return {low, entry};
}

// Returns the items at which shares of about as many entries each begin, `shares + 1` of them, from a sample.
inline std::vector<int64_t> item_shares(const Entries &entries, int64_t items, int64_t shares) {
    std::vector<int64_t> begins(std::size_t(shares + 1), 0);
    begins.back() = items;
    if (shares == 1) return begins;
    const int64_t count = entries.count, size = std::min(count, SAMPLE_SIZE * std::min<int64_t>(shares, 8));
    std::vector<int64_t> sample(static_cast<std::size_t>(size));
    std::uint64_t random = 1;  // in each stretch another entry: rows of equal length would be sampled at one place
    for (int64_t i = 0; i < size; ++i) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        const int64_t begin = count / size * i, stretch = count / size;
        const int64_t entry = begin + int64_t((random >> 33) % std::uint64_t(stretch));
        sample[std::size_t(i)] = with_items(entries, [&](const auto *of) { return int64_t(of[entry]); });
    }
    auto from = sample.begin();
    for (int64_t share = 1; share < shares; ++share) {
        const auto at = sample.begin() + share * size / shares;
        std::nth_element(from, at, sample.end());
        begins[std::size_t(share)] = *at;
        from = at;
    }
    return begins;
}

}  // namespace mf
