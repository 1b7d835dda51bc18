// Sets of fewer than 64 micro-tiles or cells, one bit each.

#pragma once

#include <algorithm>
#include <cstdint>

#include "integers.h"

namespace mf {

using TileMask = std::uint64_t;

// Returns the set {0, ..., count - 1}.
inline TileMask first_tiles(int64_t count) { return (TileMask(1) << count) - 1; }

inline bool contains(TileMask set, int64_t member) { return set >> member & 1; }

template <class Visit> void for_each(TileMask set, Visit visit) {
    for (; set; set &= set - 1) visit(int64_t(__builtin_ctzll(set)));
}

// Calls visit(begin, length) for every run of consecutive members. Begin and length are in elements: each member spans
// `size` of them, and the last run is clipped to `end`.
template <class Visit> void for_each_run(TileMask set, int64_t size, int64_t end, Visit visit) {
    while (set) {
        const int64_t first = __builtin_ctzll(set), past = first + __builtin_ctzll(~(set >> first));
        visit(first * size, std::min(past * size, end) - first * size);
        set &= ~first_tiles(past);
    }
}

}  // namespace mf
