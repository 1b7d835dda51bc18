// Division of the matrix into units of work for the threads.

#pragma once

#include <algorithm>
#include <limits>

#include "integers.h"

namespace mf {

// One side of the matrix, users or items, divided into ranges of whole cells (block.h).
struct Partition {
    int64_t count;   // users or items
    int64_t cell;    // users or items of a cell
    int64_t padded;  // count rounded up to whole cells
    int64_t ranges;

    Partition(int64_t count, int64_t cell) : count(count), cell(cell), padded(round_up(count, cell)), ranges(1) {}

    int64_t begin(int64_t range) const { return begin(range, ranges); }
    int64_t begin(int64_t range, int64_t of) const { return range * (padded / cell) / of * cell; }
    int64_t end(int64_t range) const { return end(range, ranges); }
    int64_t end(int64_t range, int64_t of) const { return std::min(begin(range + 1, of), count); }
    int64_t length(int64_t range) const { return end(range) - begin(range); }
    int64_t padded_length(int64_t range) const { return begin(range + 1) - begin(range); }
    int64_t longest_range() const { return ceil_div(padded / cell, ranges) * cell; }
};

// A unit is one range of users times one range of items, numbered user range by user range.

constexpr double UNIT_WORK = 1 << 19;      // multiply-adds per matrix product that make a unit worth a thread
constexpr int64_t UNITS_PER_THREAD = 8;    // at most; with several, threads balance unevenly observed units
constexpr int64_t MAX_WEIGHED_UNITS = 64;  // up to this many units, the load of every thread is computed
constexpr double ROW_COST = 8;             // cost of a row of partial gradients, in ratings

// Returns the load of the busiest thread, in ratings, if every thread works through its own share of the units.
// With more than MAX_WEIGHED_UNITS, returns the average load.
inline double busiest_load(const Partition &users, const Partition &items, int64_t threads) {
    const int64_t units = users.ranges * items.ranges;
    if (units > MAX_WEIGHED_UNITS) {
        const double ratings = double(users.count) * double(items.count);
        const double rows = double(users.ranges * items.count + items.ranges * users.count);
        return (ratings + ROW_COST * rows) / double(threads);
    }
    double busiest = 0;
    for (int64_t thread = 0; thread < threads; ++thread) {
        double load = 0;
        for (int64_t unit = thread * units / threads; unit < (thread + 1) * units / threads; ++unit) {
            const double rows = double(users.length(unit / items.ranges));
            const double columns = double(items.length(unit % items.ranges));
            load += rows * columns + ROW_COST * (rows + columns);
        }
        busiest = std::max(busiest, load);
    }
    return busiest;
}

// Sets the number of ranges of both sides: the same number of units for every thread, none too small to be worth a
// thread, and of the possible shapes the one with the smallest load of the busiest thread.
inline void divide(Partition &users, Partition &items, int64_t rank, int64_t threads) {
    const int64_t worthwhile = int64_t(double(users.count) * double(items.count) * double(rank) / UNIT_WORK);
    const int64_t units = worthwhile < threads
                              ? std::max<int64_t>(1, worthwhile)
                              : threads * std::min(UNITS_PER_THREAD, 1 + worthwhile / threads / 2);
    double least = std::numeric_limits<double>::infinity();
    Partition some_users = users, some_items = items;
    for (int64_t user_ranges = 1; user_ranges <= units; ++user_ranges) {
        if (units % user_ranges) continue;
        some_users.ranges = std::min(user_ranges, users.padded / users.cell);
        some_items.ranges = std::min(units / user_ranges, items.padded / items.cell);
        const double load = busiest_load(some_users, some_items, threads);
        if (load >= least) continue;
        least = load;
        users.ranges = some_users.ranges;
        items.ranges = some_items.ranges;
    }
}

}  // namespace mf
