// Checks the indices of sparse ratings before anything is read through them.

#pragma once

#include <atomic>

#include "entries.h"
#include "pool.h"

namespace mf {

constexpr int64_t CHECKED_ENTRIES = 1 << 15;  // entries, or users, whose indices a thread checks at a time

// Returns whether the columns of entries begin to end are below `items`, and adds to `falls` how many do not exceed the
// one before, across rows.
template <class Index>
bool in_range(const Index *columns, int64_t begin, int64_t end, int64_t items, int64_t &falls) {
    using Unsigned = std::make_unsigned_t<Index>;
    if (items == 0) return begin == end;
    const bool all = items > int64_t(std::numeric_limits<Index>::max());  // every index that is not negative
    const auto bound = Unsigned(all ? std::numeric_limits<Index>::max() : items - 1);
    Unsigned largest = 0;
    std::uint32_t falling = 0;
    for (int64_t entry = begin; entry < end; ++entry) {
        largest = std::max(largest, Unsigned(columns[entry]));
        if (entry > 0) falling += columns[entry] <= columns[entry - 1];
    }
    falls += falling;
    return largest <= bound;
}

// Returns whether row pointers rise from 0 to the number of entries, and columns are in range and rise in every row.
inline bool rows_are_sorted(const Entries &entries, int64_t users, int64_t items, int64_t threads) {
    const int64_t *rows = entries.rows, count = entries.count;
    if (rows[0] != 0 || rows[users] != count) return false;
    std::atomic<bool> fit{true};
    const Pool::Lease pool(threads);
    pool.parallel(threads, ceil_div(users, CHECKED_ENTRIES), [&](int64_t part, int64_t) {
        const int64_t begin = part * CHECKED_ENTRIES, end = std::min(begin + CHECKED_ENTRIES, users);
        bool rise = true;
        for (int64_t user = begin; user < end; ++user) rise &= rows[user] <= rows[user + 1];
        if (!rise) fit.store(false, std::memory_order_relaxed);
    });
    if (!fit.load()) return false;  // until here, nothing was read through a row pointer
    std::atomic<int64_t> falls{0}, allowed{0};  // allowed: of the first entry of a row
    pool.parallel(threads, ceil_div(count, CHECKED_ENTRIES), [&](int64_t part, int64_t) {
        const int64_t begin = part * CHECKED_ENTRIES, end = std::min(begin + CHECKED_ENTRIES, count);
        with_items(entries, [&](const auto *columns) {
            int64_t falling = 0, starting = 0;
            if (!in_range(columns, begin, end, items, falling)) fit.store(false, std::memory_order_relaxed);
            const int64_t *row = std::lower_bound(rows, rows + users, std::max<int64_t>(begin, 1));
            for (int64_t before = -1; row < rows + users && *row < end; ++row) {
                if (*row != before) starting += columns[*row] <= columns[*row - 1];
                before = *row;
            }
            falls.fetch_add(falling, std::memory_order_relaxed);
            allowed.fetch_add(starting, std::memory_order_relaxed);
        });
    });
    return fit.load() && falls.load() == allowed.load();
}

}  // namespace mf
