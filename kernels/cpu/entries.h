// Sparse ratings as the caller passes them: entries in compressed rows, of any dtype, decoded a chunk at a time.

#pragma once

#include <algorithm>

#include "dtypes.h"

namespace mf {

struct Entries {
    const int64_t *rows;  // [users + 1]: user i has the entries rows[i] to rows[i + 1]
    const void *items;    // [count], rising in every row
    int64_t count;
    int64_t item_bytes;   // of an index: 2 (unsigned), 4 or 8
    Matrix ratings;       // [1, count]

    // Returns a user's first entry. A program may have written to row pointers and items since their check: both are
    // kept in range, so that results are then wrong but nothing else is read.
    int64_t begin(int64_t user) const { return std::min(std::max<int64_t>(rows[user], 0), count); }
};

// Calls visit(pointer) with the items as what they are.
template <class Visit> auto with_items(const Entries &entries, Visit visit) {
    switch (entries.item_bytes) {
        case 2: return visit(static_cast<const std::uint16_t *>(entries.items));
        case 4: return visit(static_cast<const std::int32_t *>(entries.items));
        default: return visit(static_cast<const int64_t *>(entries.items));
    }
}

// Returns the first entry from `begin` to `end`, of one row, whose item is not below `item`. Bisects without branches,
// which would be mispredicted.
inline int64_t first_not_below(const Entries &entries, int64_t begin, int64_t end, int64_t item) {
    return with_items(entries, [&](const auto *items) {
        int64_t first = begin;
        for (int64_t length = end - begin; length > 0;) {
            const int64_t half = ceil_div(length, 2);
            first += int64_t(items[first + half - 1]) < item ? half : 0;
            length -= half;
        }
        return first;
    });
}

// Reads N consecutive items or ratings, the latter as T, of which the last ones may belong to later users. Where fewer
// are left, the rest of the items is 0. The fixed number spares branches that the length of rows would decide.
template <class T, int N> class EntryReader {
  public:
    EntryReader(const Entries &entries, int64_t items, double scale, double offset)
        : entries_(entries), last_item_(std::uint32_t(std::max<int64_t>(items - 1, 0))), scale_(T(scale)),
          offset_(T(offset)) {
        static constexpr Decode decoders[] = {
            decode_ratings<T, double>,       decode_ratings<T, float>,        decode_ratings<T, BFloat16Bits>,
            decode_ratings<T, Float16Bits>,  decode_ratings<T, std::uint8_t>, decode_ratings<T, std::int8_t>,
            decode_ratings<T, std::uint8_t>};
        decode_ = decoders[entries.ratings.kind];
        rating_bytes_ = RATING_BYTES[entries.ratings.kind];
    }

    void read_items(int64_t begin, std::int32_t *to) const {
        prefetch(entries_.items, (begin + AHEAD) * entries_.item_bytes, N * entries_.item_bytes);
        with_items(entries_, [&](const auto *items) {
            if (begin + N <= entries_.count) {
                for (int i = 0; i < N; ++i) to[i] = in_range(items[begin + i]);
            } else {
                std::fill_n(to, N, 0);
                for (int64_t i = begin; i < entries_.count; ++i) to[i - begin] = in_range(items[i]);
            }
        });
    }

    void read_ratings(int64_t begin, T *to) const {
        prefetch(entries_.ratings.data, (begin + AHEAD) * rating_bytes_, N * rating_bytes_);
        decode_(entries_.ratings, {0, begin, 1, std::min<int64_t>(N, entries_.count - begin)}, to, N);
        if (entries_.ratings.kind == CODES)
            for (int i = 0; i < N; ++i) to[i] = to[i] * scale_ + offset_;
    }

  private:
    static constexpr int64_t AHEAD = 512;  // entries

    template <class Index> ALWAYS_INLINE std::int32_t in_range(Index item) const {
        return std::int32_t(std::min(std::uint32_t(item), last_item_));
    }

    // Prefetches bytes that are read once. Prefetching past the end of the entries is harmless.
    ALWAYS_INLINE static void prefetch(const void *from, int64_t begin, int64_t bytes) {
        const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(from) + std::uintptr_t(begin);
        for (int64_t byte = 0; byte < bytes; byte += 64)
            __builtin_prefetch(reinterpret_cast<const char *>(address + std::uintptr_t(byte)), 0, 0);
    }

    using Decode = void (*)(const Matrix &, const Region &, void *, int64_t);

    Entries entries_;
    std::uint32_t last_item_;
    int64_t rating_bytes_;
    T scale_, offset_;
    Decode decode_;
};

}  // namespace mf
