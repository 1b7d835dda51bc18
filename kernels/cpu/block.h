// A block of errors, which stays in a core's cache between the products that make it and those that read it.

#pragma once

#include <algorithm>

#include "ratings.h"

template <class T> struct Block : Simd<T> {
    // A cell is the grain of the gradient products: whole register tiles, and whole groups of product rows.
    static constexpr int CELL_USERS = ACCUMULATORS, CELL_ITEMS = 3 * Simd<T>::NR;
    // Ratings are read in runs of 1.5 KiB, long enough for the hardware to fetch ahead; the errors stay in L2.
    static constexpr int USERS = 96, ITEMS = CELL_ITEMS * (1536 / int(sizeof(T)) / CELL_ITEMS);
    static constexpr int USER_CELLS = USERS / CELL_USERS, TILES = ITEMS / Simd<T>::NR;
    static_assert(USERS % CELL_USERS == 0 && CELL_USERS % MR == 0 && CELL_ITEMS % ACCUMULATORS == 0);
    static_assert(CELL_USERS % CHAINS == 0 && CELL_ITEMS % CHAINS == 0);

    T E[USERS * ITEMS];
    T column_sums[ITEMS];
    bool any;                        // whether one of its ratings is observed
    bool seen[USERS / MR][TILES];    // register tiles with an observed rating; the others are not written
    bool active[USER_CELLS][TILES];  // tiles of a cell's users with one; all of their cell is written
    typename Ratings<T, ITEMS>::Copy copy;

    // Finds the active tiles, and writes zeros where cells with one have seen nothing.
    void activate() {
        constexpr int HIGH = CELL_USERS / MR, WIDE = CELL_ITEMS / Simd<T>::NR;  // register tiles of a cell
        std::memset(active, 0, sizeof active);
        for (int i = 0; i < USERS / MR; ++i)
            for (int j = 0; j < TILES; ++j) active[i / HIGH][j] |= seen[i][j];
        for (int i = 0; i < USERS / MR; ++i)
            for (int j = 0; j < TILES; ++j) {
                const bool *cell = active[i / HIGH] + j / WIDE * WIDE;
                if (seen[i][j] || !std::any_of(cell, cell + WIDE, [](bool active) { return active; })) continue;
                for (int r = i * MR; r < (i + 1) * MR; ++r)
                    std::fill_n(E + r * ITEMS + j * Simd<T>::NR, Simd<T>::NR, T(0));
            }
    }
};

// visit(begin, length) for every run of active cells of `size`, clipped to `end`.
template <class Active, class Visit>
void for_runs(int64_t cells, int64_t size, int64_t end, Active active, Visit visit) {
    for (int64_t cell = 0; cell < cells; ++cell) {
        if (!active(cell)) continue;
        const int64_t begin = cell;
        while (cell < cells && active(cell)) ++cell;
        visit(begin * size, std::min(cell * size, end) - begin * size);
    }
}
