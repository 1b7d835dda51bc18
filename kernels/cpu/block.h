// A block of errors, small enough to stay in cache between the product that writes it and the two that read it.

#pragma once

#include <algorithm>
#include <iterator>

#include "bitset.h"
#include "ratings.h"

namespace mf {

template <class T> struct Block : Simd<T> {
    using Simd<T>::NR;

    // A cell is the grain at which gradient products skip unobserved parts: whole micro-tiles of the predictions, and
    // whole tiles of the gradient products.
    static constexpr int CELL_USERS = ACCUMULATORS, CELL_ITEMS = 3 * NR;
    // A row of ratings spans 1.5 KiB, long enough for the hardware prefetcher. The errors fit in L2.
    static constexpr int USERS = 96, ITEMS = CELL_ITEMS * (1536 / int(sizeof(T)) / CELL_ITEMS);
    static constexpr int USER_CELLS = USERS / CELL_USERS, TILES = ITEMS / NR;  // TILES: of a panel
    static_assert(USERS % CELL_USERS == 0 && CELL_USERS % MR == 0 && CELL_ITEMS % ACCUMULATORS == 0);
    static_assert(CELL_USERS % CHAINS == 0 && CELL_ITEMS % CHAINS == 0);
    static_assert(TILES < 64, "a TileMask holds the micro-tiles of a panel");

    T E[USERS * ITEMS];
    T column_sums[ITEMS];
    TileMask observed[USERS / MR];  // micro-tiles of a panel with an observed rating; E is not written in the others
    TileMask active[USER_CELLS];    // the union of a cell row's observed micro-tiles
    typename Ratings<T, ITEMS>::Copy copy;

    bool any_observed() const {
        return std::any_of(std::begin(observed), std::end(observed), [](TileMask tiles) { return tiles != 0; });
    }

    // Finds the active tiles. Writes zeros to the unobserved micro-tiles of cells with an observed rating, so that the
    // gradient products can read whole cells.
    void activate() {
        constexpr int PANELS = CELL_USERS / MR, WIDTH = CELL_ITEMS / NR;  // of a cell, WIDTH in micro-tiles
        for (int cell = 0; cell < USER_CELLS; ++cell) {
            const int first = cell * PANELS, last = first + PANELS;
            TileMask tiles = 0, read = 0;
            for (int panel = first; panel < last; ++panel) tiles |= observed[panel];
            for (int j = 0; j < TILES; j += WIDTH)
                if (tiles >> j & first_tiles(WIDTH)) read |= first_tiles(WIDTH) << j;
            active[cell] = tiles;
            for (int panel = first; panel < last; ++panel)
                for_each(read & ~observed[panel], [&](int64_t tile) {
                    T *zeros = E + panel * MR * ITEMS + tile * NR;
                    for (int r = 0; r < MR; ++r) std::fill_n(zeros + r * ITEMS, NR, T(0));
                });
        }
    }

    // Returns the cell rows with an active tile in columns j to j + columns.
    TileMask active_cells(int64_t j, int64_t columns) const {
        const int64_t begin = j / NR, end = (j + columns - 1) / NR + 1;
        TileMask cells = 0;
        for (int cell = 0; cell < USER_CELLS; ++cell)
            cells |= TileMask((active[cell] & first_tiles(end) & ~first_tiles(begin)) != 0) << cell;
        return cells;
    }
};

}  // namespace mf
