// Division of sparse ratings among threads: users by the work they are, items by how often they are rated.

#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "entries.h"

namespace mf {

constexpr int64_t ROW_WORK = 8;         // of a user, beside their entries, in entries
constexpr int64_t ITEM_WORK = 2;        // of an item, beside its entries, in entries
constexpr int64_t SAMPLE_SIZE = 1024;   // entries by which the items are divided, per share
constexpr int64_t STRETCHES = 256;      // of the items, at most, for which their work is estimated
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

// Returns the items at which shares of about equal work begin, `shares + 1` of them. Work is estimated from a sample of
// the entries, by stretches of the items; within one it is taken to be even.
inline std::vector<int64_t> item_shares(const Entries &entries, int64_t items, int64_t shares) {
    std::vector<int64_t> begins(std::size_t(shares + 1), 0);
    begins[std::size_t(shares)] = items;
    if (shares == 1 || items == 0) return begins;
    const int64_t count = entries.count, size = std::min(count, SAMPLE_SIZE * std::min<int64_t>(shares, 8));
    const int64_t stretches = std::min(items, STRETCHES), length = ceil_div(items, stretches);
    std::vector<double> work(std::size_t(stretches), double(ITEM_WORK * length));
    std::uint64_t random = 1;  // in each part another entry: rows of equal length would be sampled at one place
    for (int64_t i = 0; i < size; ++i) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        const int64_t part = count / size, entry = part * i + int64_t((random >> 33) % std::uint64_t(part));
        const int64_t item = with_items(entries, [&](const auto *of) { return int64_t(of[entry]); });
        const int64_t stretch = std::min(std::max<int64_t>(item, 0) / length, stretches - 1);  // kept in range
        work[std::size_t(stretch)] += double(count) / double(size);
    }
    const double total = std::accumulate(work.begin(), work.end(), 0.0);
    double before = 0;
    for (int64_t stretch = 0, share = 1; stretch < stretches; ++stretch) {
        const double here = work[std::size_t(stretch)];
        for (; share < shares && total * double(share) / double(shares) < before + here; ++share) {
            const double inside = (total * double(share) / double(shares) - before) / here;
            begins[std::size_t(share)] = std::min(items, int64_t((double(stretch) + inside) * double(length)));
        }
        before += here;
    }
    return begins;
}

}  // namespace mf
