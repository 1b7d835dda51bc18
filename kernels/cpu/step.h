// One training step: errors, loss and every gradient in one pass over the ratings.
//
// The matrix is divided into units, the tasks of the threads. A unit walks through blocks of errors that stay in cache.
// In each block it first computes the errors, panel by panel (MR users) and micro-tile by micro-tile (MR users x NR
// items), then adds the gradient products. Every unit has its own slices of the partial gradients, which are summed at
// the end in a fixed order. Results therefore depend on the number of threads requested, never on their timing.

#pragma once

#include "block.h"
#include "call.h"
#include "microkernels.h"
#include "packing.h"
#include "phases.h"
#include "pool.h"
#include "scratch.h"

namespace mf {

template <class T> class Step {
    static constexpr int LANES = Simd<T>::LANES, NR = Simd<T>::NR;
    static constexpr int64_t MAX_TAIL = LANES / 2 - 1;  // most columns for which tail products beat one more vector
    static constexpr int64_t REDUCTION_SIZE = 1 << 13;  // factor gradients per reduction, on the longer side
    static constexpr double CACHED = 1 << 17;           // ratings that caches may still hold: no prefetching
    static constexpr int64_t PREFETCH_DISTANCE = 8;     // panels, where nothing is observed: these take little time

    struct Workspace {  // of a thread
        PackedRange<T> users, items;
        T *item_panels;  // micro-panels of the packed items: [rows / NR, ld, NR]
        Block<T> *block;

        const T *panels_of(int64_t j) const { return item_panels + (j - items.first) * items.ld; }
    };

    const Call &call;
    const int64_t rank, ld;       // ld: leading dimension of packed factors and partial gradients
    const int64_t tail, vectors;  // of a row of factors: columns left to the tail products, and vectors before them
    Side<T> users, items;
    Ratings<T, Block<T>::ITEMS> ratings;
    int64_t units, reductions;        // tasks of the two phases; a reduction does its share of both sides
    double *sse, *norms, *bias_sums;  // [units], [units], [reductions]
    Workspace *workspaces;            // [threads]

  public:
    Step(const Call &call, const Parameters &user_parameters, const Parameters &item_parameters,
         const Matrix &ratings, const Matrix &mask)
        : call(call), rank(call.rank), ld(leading_dimension(rank)), tail(rank % LANES <= MAX_TAIL ? rank % LANES : 0),
          vectors(ceil_div(rank - tail, LANES)), users(user_parameters, Block<T>::CELL_USERS, rank, ld),
          items(item_parameters, Block<T>::CELL_ITEMS, rank, ld), ratings(ratings, mask, call.scale, call.offset) {
        divide(users, items, rank, call.threads);
        units = users.ranges * items.ranges;
        reductions = ceil_div(std::max(users.padded, items.padded) * ld, REDUCTION_SIZE);
    }

    void run(Scratch &scratch) {
        allocate(scratch);
        const Pool::Lease pool(call.threads);
        pool.parallel(call.threads, units, [&](int64_t unit, int64_t thread) { run_unit(unit, workspaces[thread]); });
        *call.loss = sum(sse, units) + call.reg * sum(norms, units);
        if (!call.gradients) return;
        Stopwatch watch;
        pool.parallel(call.threads, reductions, [&](int64_t part, int64_t) {
            bias_sums[part] = users.reduce(part, reductions, items.ranges, call.reg);
            items.reduce(part, reductions, users.ranges, call.reg);
        });
        watch.book(REDUCTION);
        *static_cast<T *>(call.d_global_bias) = T(2 * sum(bias_sums, reductions));
    }

  private:
    // Pads rows to whole vectors. Rows of a multiple of 512 bytes get one more cache line; otherwise all of them would
    // compete for a few cache sets.
    static int64_t leading_dimension(int64_t rank) {
        const int64_t whole = round_up(rank, LANES);
        return whole * int64_t(sizeof(T)) % 512 ? whole : whole + CACHE_LINE / int64_t(sizeof(T));
    }

    static double sum(const double *values, int64_t count) {
        double total = 0;
        for (int64_t i = 0; i < count; ++i) total += values[i];
        return total;
    }

    void allocate(Scratch &scratch) {
        scratch.reset();
        if (call.gradients) {
            users.d_factors = scratch.allocate<T>(items.ranges * users.padded * ld);
            users.d_bias = scratch.allocate<double>(items.ranges * users.padded);
            items.d_factors = scratch.allocate<T>(users.ranges * items.padded * ld);
            items.d_bias = scratch.allocate<double>(users.ranges * items.padded);
        }
        sse = scratch.allocate<double>(units);
        norms = scratch.allocate<double>(units);
        bias_sums = scratch.allocate<double>(reductions);
        const int64_t threads = std::min(call.threads, units);
        workspaces = scratch.allocate<Workspace>(threads);
        for (int64_t thread = 0; thread < threads; ++thread) {
            Workspace &workspace = workspaces[thread];
            workspace.users = allocate_range(users, scratch);
            workspace.items = allocate_range(items, scratch);
            workspace.item_panels = scratch.allocate<T>(items.longest_range() * ld);
            workspace.block = scratch.allocate<Block<T>>(1);
        }
    }

    PackedRange<T> allocate_range(const Side<T> &side, Scratch &scratch) const {
        const int64_t rows = side.longest_range();
        T *buffer = scratch.allocate<T>(rows * ld), *bias = scratch.allocate<T>(rows);
        return {-1, 0, ld, buffer, bias, buffer};
    }

    void run_unit(int64_t unit, Workspace &workspace) {
        Stopwatch watch;
        const int64_t user_range = unit / items.ranges, item_range = unit % items.ranges;
        pack_unit(user_range, item_range, workspace);
        if (call.gradients) {
            users.clear(item_range, user_range);
            items.clear(user_range, item_range);
        }
        sse[unit] = norms[unit] = 0;
        if (item_range == 0) norms[unit] += users.squared_norm(workspace.users);
        if (user_range == 0) norms[unit] += items.squared_norm(workspace.items);
        watch.book(PACKING);
        const int64_t i_end = users.end(user_range), j_end = items.end(item_range);
        for (int64_t i = users.begin(user_range); i < i_end; i += Block<T>::USERS)
            for (int64_t j = items.begin(item_range), columns; j < j_end; j += columns) {
                columns = std::min<int64_t>(Block<T>::ITEMS, j_end - j);
                const Region at = {i, j, std::min<int64_t>(Block<T>::USERS, i_end - i), columns};
                sse[unit] += block_errors(at, item_range, workspace);
                if (call.gradients && workspace.block->any_observed())
                    block_gradients(at, user_range, item_range, workspace);
            }
    }

    // Packs what the thread's last unit did not share. Every thread packs for itself, so that no core waits for data
    // that another wrote.
    void pack_unit(int64_t user_range, int64_t item_range, Workspace &workspace) const {
        users.pack(user_range, *static_cast<const T *>(call.global_bias), workspace.users);
        if (!items.pack(item_range, T(0), workspace.items)) return;
        for (int64_t j = 0; j < items.padded_length(item_range); j += NR)
            pack_panel<NR>(rank, workspace.items.factors + j * ld, ld, workspace.item_panels + j * ld);
    }

    // Computes the errors of a block and adds their row sums to the bias gradients. Returns the sum of their squares.
    double block_errors(const Region &at, int64_t item_range, Workspace &workspace) {
        const T *P = workspace.users.factors_of(at.i), *Qt = workspace.panels_of(at.j);
        const T *bu = workspace.users.bias_of(at.i), *bi = workspace.items.bias_of(at.j);
        Block<T> &block = *workspace.block;
        const bool prefetching = double(users.count) * double(items.count) > CACHED;
        const int64_t whole = at.columns / NR * NR;  // columns of whole micro-tiles; the rest is a second panel
        double squares = 0;
        std::fill_n(block.column_sums, Block<T>::ITEMS, T(0));
        std::fill(std::begin(block.observed), std::end(block.observed), TileMask(0));
        for (int64_t i = 0; i < at.rows; i += MR) {
            Stopwatch watch;
            const int64_t rows = std::min<int64_t>(MR, at.rows - i);
            RatingsPanel<T> panel, last;
            TileMask observed = ratings.read_panel({at.i + i, at.j, rows, whole}, panel, block.copy, 0);
            if (whole < at.columns) {
                const Region rest = {at.i + i, at.j + whole, rows, at.columns - whole};
                observed |= ratings.read_panel(rest, last, block.copy, whole) << whole / NR;
            }
            block.observed[i / MR] = observed;
            watch.book(DECODING);
            T *E = block.E + i * Block<T>::ITEMS;
            const Position next = panels_ahead(observed ? 1 : PREFETCH_DISTANCE, i, at);
            const typename decltype(ratings)::Walk walk = {{at.i + i, at.j}, next, prefetching};
            PanelErrors<T> errors = {E, Block<T>::ITEMS, block.column_sums, {}, 0};
            PanelFactors<T> factors = {rank, ld, P + i * ld, Qt, bu + i, bi};
            ratings.errors(panel, factors, observed & first_tiles(whole / NR), walk, errors);
            if (whole < at.columns) {
                errors.E += whole;
                errors.column_sums += whole;
                factors.Qt += whole * ld;
                factors.item_bias += whole;
                ratings.errors(last, factors, observed >> whole / NR, walk.from(whole), errors);
            }
            squares += errors.squares;
            if (!call.gradients) continue;
            double *d_user_bias = users.d_bias + item_range * users.padded + at.i + i;
            for (int64_t r = 0; r < rows; ++r) d_user_bias[r] += errors.row_sums[r];
        }
        return squares;
    }

    // Returns where the walk through the matrix is `panels` panels after row i of a block: below, or in the next block.
    static Position panels_ahead(int64_t panels, int64_t i, const Region &at) {
        i += panels * MR;
        if (i < at.rows) return {at.i + i, at.j};
        return {at.i + i - round_up(at.rows, MR), at.j + at.columns};
    }

    // Adds the gradient products of a block, over runs of active tiles.
    void block_gradients(const Region &at, int64_t user_range, int64_t item_range, Workspace &workspace) {
        Stopwatch watch;
        using B = Block<T>;
        B &block = *workspace.block;
        block.activate();
        const int64_t whole = rank - tail;  // columns before the tail
        const T *P = workspace.users.factors_of(at.i), *Q = workspace.items.factors_of(at.j);
        const T *Qt = workspace.panels_of(at.j);
        T *dP = users.d_factors + (item_range * users.padded + at.i) * ld;
        T *dQ = items.d_factors + (user_range * items.padded + at.j) * ld;
        double *d_item_bias = items.d_bias + user_range * items.padded + at.j;
        for (int64_t j = 0; j < at.columns; ++j) d_item_bias[j] += double(block.column_sums[j]);
        for (int64_t i = 0; i < at.rows; i += B::CELL_USERS) {  // dP += E Q
            const int64_t rows = std::min<int64_t>(B::CELL_USERS, at.rows - i);
            for_each_run(block.active[i / B::CELL_USERS], NR, at.columns, [&](int64_t j, int64_t depth) {
                const T *E = block.E + i * B::ITEMS + j;
                gradient_product<T, B::ITEMS, 1>(rows, vectors, depth, E, Q + j * ld, dP + i * ld, ld);
                tail_product<T, B::ITEMS>(rows, tail, round_up(depth, NR), E, Qt + j * ld + whole * NR,
                                          dP + i * ld + whole, ld);
            });
        }
        watch.book(USER_GRADIENTS);
        for (int64_t j = 0; j < at.columns; j += ACCUMULATORS)  // dQ += E' P
            for_each_run(block.active_cells(j, ACCUMULATORS), B::CELL_USERS, at.rows, [&](int64_t i, int64_t depth) {
                gradient_product<T, 1, B::ITEMS>(std::min<int64_t>(ACCUMULATORS, at.columns - j), vectors, depth,
                                                 block.E + i * B::ITEMS + j, P + i * ld, dQ + j * ld, ld);
            });
        for (int64_t j = 0; tail && j < at.columns; j += NR)
            for_each_run(block.active_cells(j, NR), B::CELL_USERS, at.rows, [&](int64_t i, int64_t depth) {
                transposed_tail_product<T, B::ITEMS>(tail, depth, block.E + i * B::ITEMS + j, P + i * ld + whole,
                                                     dQ + j * ld + whole, ld);
            });
        watch.book(ITEM_GRADIENTS);
    }
};

}  // namespace mf
