// Sets of fewer than 64 register tiles or cells, one bit each.

#pragma once

#include <algorithm>
#include <cstdint>

using std::int64_t;

using Set = std::uint64_t;

inline Set below(int64_t count) { return (Set(1) << count) - 1; }

inline bool has(Set set, int64_t member) { return set >> member & 1; }

template <class Visit> void for_each(Set set, Visit visit) {
    for (; set; set &= set - 1) visit(int64_t(__builtin_ctzll(set)));
}

// visit(begin, length) for every run of members that are each `size` long, clipped to `end`.
template <class Visit> void for_runs(Set set, int64_t size, int64_t end, Visit visit) {
    while (set) {
        const int64_t begin = __builtin_ctzll(set), after = begin + __builtin_ctzll(~(set >> begin));
        visit(begin * size, std::min(after * size, end) - begin * size);
        set &= ~below(after);
    }
}
