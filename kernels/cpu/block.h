// A block of errors, which stays in a core's cache between the products that make it and those that read it.

#pragma once

#include <algorithm>
#include <iterator>

#include "ratings.h"
#include "bitset.h"

namespace mf {

template <class T> struct Block : Simd<T> {
    // A cell is the grain of the gradient products: whole register tiles, and whole groups of product rows.
    static constexpr int CELL_USERS = ACCUMULATORS, CELL_ITEMS = 3 * Simd<T>::NR;
    // Ratings are read in runs of 1.5 KiB, long enough for the hardware to fetch ahead; the errors stay in L2.
    static constexpr int USERS = 96, ITEMS = CELL_ITEMS * (1536 / int(sizeof(T)) / CELL_ITEMS);
    static constexpr int USER_CELLS = USERS / CELL_USERS, TILES = ITEMS / Simd<T>::NR;
    static_assert(USERS % CELL_USERS == 0 && CELL_USERS % MR == 0 && CELL_ITEMS % ACCUMULATORS == 0);
    static_assert(CELL_USERS % CHAINS == 0 && CELL_ITEMS % CHAINS == 0);
    static_assert(TILES < 64);

    T E[USERS * ITEMS];
    T column_sums[ITEMS];
    TileMask seen[USERS / MR];    // a strip's register tiles with an observed rating; the others are not written
    TileMask active[USER_CELLS];  // tiles of a cell's users with one; all of their cell is written
    typename Ratings<T, ITEMS>::Copy copy;

    bool any() const {
        return std::any_of(std::begin(seen), std::end(seen), [](TileMask tiles) { return tiles != 0; });
    }

    // Finds the active tiles, and writes zeros where cells with one have seen nothing.
    void activate() {
        constexpr int HIGH = CELL_USERS / MR, WIDE = CELL_ITEMS / Simd<T>::NR;  // register tiles of a cell
        for (int cell = 0; cell < USER_CELLS; ++cell) {
            TileMask tiles = 0, written = 0;
            for (int i = cell * HIGH; i < (cell + 1) * HIGH; ++i) tiles |= seen[i];
            for (int j = 0; j < TILES; j += WIDE)
                if (tiles >> j & first_tiles(WIDE)) written |= first_tiles(WIDE) << j;
            active[cell] = tiles;
            for (int i = cell * HIGH; i < (cell + 1) * HIGH; ++i)
                for_each(written & ~seen[i], [&](int64_t tile) {
                    T *zeros = E + i * MR * ITEMS + tile * Simd<T>::NR;
                    for (int r = 0; r < MR; ++r) std::fill_n(zeros + r * ITEMS, Simd<T>::NR, T(0));
                });
        }
    }

    // Of users, those where a tile is active that the columns from j on reach into.
    TileMask active_cells(int64_t j, int64_t columns) const {
        const int64_t begin = j / Simd<T>::NR, end = (j + columns - 1) / Simd<T>::NR + 1;
        TileMask cells = 0;
        for (int cell = 0; cell < USER_CELLS; ++cell)
            cells |= TileMask((active[cell] & first_tiles(end) & ~first_tiles(begin)) != 0) << cell;
        return cells;
    }
};

}  // namespace mf
