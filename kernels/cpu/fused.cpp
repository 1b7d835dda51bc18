// The fused step on a CPU: errors, loss and every gradient in one pass over the ratings.
//
//     E = P Q' + bu + bi' + mu - R where observed, else 0;   loss = sum E^2
//     dP = E Q,  dQ = E' P,  dbu = E 1,  dbi = E' 1          (doubled and regularised at the end)
//
// The matrix is cut into a grid of units, one task each. A unit walks blocks of errors that stay in L1/L2: first the
// errors, by strips of MR users and register tiles of NR items, then the gradient products. A unit has its own slices
// of the partial gradients, summed at the end in a fixed order: results depend on the number of threads asked for,
// never on their timing.

#include <cmath>

#include "scratch.h"
#include "packing.h"
#include "block.h"
#include "fma_peak.h"
#include "pool.h"
#include "microkernels.h"

namespace mf {
namespace {

struct Call {  // laid out as launch.py packs it
    Side users, items;
    Matrix ratings, mask;
    int64_t rank, double_parameters, threads, gradients;
    const void *global_bias;
    void *d_global_bias;
    double *loss;
    double reg, scale, offset;  // of codes: rating = code * scale + offset
};

template <class T> class Step {
    static constexpr int LANES = Simd<T>::LANES, NR = Simd<T>::NR;
    static constexpr double ROW_COST = 8;  // of a row of partial gradients, in ratings
    static constexpr int64_t UNITS = 8;    // for each thread, so that unevenly observed ones even out
    static constexpr int64_t WEIGHED = 64;            // most units whose work is weighed one by one
    static constexpr int64_t FINISHED = 1 << 13;      // numbers that are worth a task of finishing
    static constexpr int64_t NARROW = LANES / 2 - 1;  // most columns that cost less than a vector of them
    static constexpr int64_t CACHED = 1 << 17;        // ratings that the cores may still hold from the last step
    static constexpr int64_t LOOK_AHEAD = 8;          // strips, where nothing is seen: such strips are soon done

    struct Packed {  // rows of one range of an axis, and of its first row the place
        int64_t range, first;
        T *factors, *bias;  // [rows, ld], [rows]
    };

    struct Workspace {  // of a thread
        Packed users, items;
        T *items_by_rank;  // [rows / NR, ld, NR]
        Block<T> *block;
    };

    const Call &call;
    const int64_t rank, rest, vectors, ld;  // rest: numbers of a row beyond whole vectors, where they are few
    Axis<T> users, items;
    Ratings<T, Block<T>::ITEMS> ratings;
    int64_t tasks;                    // of finishing: each takes its share of both sides
    double *sse, *norms, *bias_sums;  // per unit, per unit, per task
    Workspace *workspaces;            // one for each thread

  public:
    Step(const Call &call, const Side &user_side, const Side &item_side, const Matrix &ratings, const Matrix &mask)
        : call(call), rank(call.rank), rest(rank % LANES <= NARROW ? rank % LANES : 0),
          vectors(ceil_div(rank - rest, LANES)), ld(row_length(rank)), users{}, items{},
          ratings(ratings, mask, call.scale, call.offset) {
        users.given = user_side;
        items.given = item_side;
        users.cell = Block<T>::CELL_USERS;
        items.cell = Block<T>::CELL_ITEMS;
        for (Axis<T> *axis : {&users, &items}) {
            axis->rank = rank;
            axis->ld = ld;
            axis->padded = round_up(axis->given.count, axis->cell);
        }
        cut();
    }

    void run(Arena &arena) {
        place(arena);
        const int64_t units = users.ranges * items.ranges;
        const Pool::Lease pool(call.threads);
        pool.parallel(call.threads, units, [&](int64_t unit, int64_t thread) { run_unit(unit, workspaces[thread]); });
        *call.loss = sum(sse, units) + call.reg * sum(norms, units);
        if (!call.gradients) return;
        pool.parallel(call.threads, tasks, [&](int64_t task, int64_t) {
            bias_sums[task] = users.finish(task, tasks, items.ranges, call.reg);
            items.finish(task, tasks, users.ranges, call.reg);
        });
        *static_cast<T *>(call.d_global_bias) = T(2 * sum(bias_sums, tasks));
    }

  private:
    static int64_t row_length(int64_t rank) {  // rows of a multiple of 512 bytes would share a few cache sets
        const int64_t whole = round_up(rank, LANES);
        return whole * int64_t(sizeof(T)) % 512 ? whole : whole + 64 / int64_t(sizeof(T));
    }

    static double sum(const double *values, int64_t count) {
        double total = 0;
        for (int64_t i = 0; i < count; ++i) total += values[i];
        return total;
    }

    // As many units for every thread, and none too small to be worth a task.
    void cut() {
        const int64_t worth = int64_t(cells() * double(rank) / (1 << 19)), threads = call.threads;
        const int64_t units = worth < threads ? std::max<int64_t>(1, worth)
                                              : threads * std::min(UNITS, 1 + worth / threads / 2);
        double least = std::numeric_limits<double>::infinity();
        for (int64_t along_users = 1; along_users <= units; ++along_users) {
            if (units % along_users) continue;
            Axis<T> high = users, wide = items;
            high.ranges = std::min(along_users, users.padded / users.cell);
            wide.ranges = std::min(units / along_users, items.padded / items.cell);
            const double cost = slowest_share(high, wide);
            if (cost >= least) continue;
            least = cost;
            users.ranges = high.ranges;
            items.ranges = wide.ranges;
        }
        tasks = ceil_div(std::max(users.padded, items.padded) * ld, FINISHED);
    }

    double cells() const { return double(users.given.count) * double(items.given.count); }

    // What the thread with most to do has to do in its own units, in ratings; of many units, what any thread has.
    double slowest_share(const Axis<T> &high, const Axis<T> &wide) const {
        const int64_t units = high.ranges * wide.ranges;
        if (units > WEIGHED)
            return (cells() + ROW_COST * double(high.ranges * items.given.count + wide.ranges * users.given.count)) /
                   double(call.threads);
        double most = 0;
        for (int64_t thread = 0; thread < call.threads; ++thread) {
            double share = 0;
            for (int64_t unit = thread * units / call.threads; unit < (thread + 1) * units / call.threads; ++unit) {
                const double rows = double(high.length(unit / wide.ranges));
                const double columns = double(wide.length(unit % wide.ranges));
                share += rows * columns + ROW_COST * (rows + columns);
            }
            most = std::max(most, share);
        }
        return most;
    }

    void place(Arena &arena) {
        char *base = nullptr;
        for (bool measured : {false, true}) {
            int64_t used = 0;
            const auto place = [&](auto *&pointer, int64_t count) {
                if (measured) pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(base + used);
                used += round_up(count * int64_t(sizeof *pointer), 64);
            };
            for (Axis<T> *axis : {&users, &items}) {
                const int64_t partials = call.gradients ? (axis == &users ? items : users).ranges : 0;
                place(axis->d_factors, partials * axis->padded * ld);
                place(axis->d_bias, partials * axis->padded);
            }
            place(sse, users.ranges * items.ranges);
            place(norms, users.ranges * items.ranges);
            place(bias_sums, tasks);
            place(workspaces, call.threads);
            for (int64_t thread = 0; thread < call.threads; ++thread) {
                Workspace unplaced, &own = measured ? workspaces[thread] : unplaced;
                if (thread >= users.ranges * items.ranges) continue;  // there is no unit for it
                own.users.range = own.items.range = -1;
                place(own.users.factors, users.longest() * ld);
                place(own.users.bias, users.longest());
                place(own.items.factors, items.longest() * ld);
                place(own.items.bias, items.longest());
                place(own.items_by_rank, items.longest() * ld);
                place(own.block, 1);
            }
            if (!measured) base = arena.reserve(used);
        }
    }

    void run_unit(int64_t unit, Workspace &own) {
        const int64_t user_range = unit / items.ranges, item_range = unit % items.ranges;
        pack_unit(user_range, item_range, own);
        if (call.gradients) {
            users.clear(item_range, user_range);
            items.clear(user_range, item_range);
        }
        sse[unit] = norms[unit] = 0;
        if (item_range == 0) norms[unit] += users.squared_norm(user_range, own.users.factors);
        if (user_range == 0) norms[unit] += items.squared_norm(item_range, own.items.factors);
        const int64_t i_end = users.end(user_range), j_end = items.end(item_range);
        for (int64_t i = users.begin(user_range); i < i_end; i += Block<T>::USERS)
            for (int64_t j = items.begin(item_range), columns; j < j_end; j += columns) {
                columns = std::min<int64_t>(Block<T>::ITEMS, j_end - j);
                const Region at = {i, j, std::min<int64_t>(Block<T>::USERS, i_end - i), columns};
                sse[unit] += block_errors(at, users.d_bias + item_range * users.padded + i, own);
                if (call.gradients && own.block->any()) block_gradients(at, user_range, item_range, own);
            }
    }

    // Every thread packs for itself, what its last unit has not: no core waits for what another one wrote.
    void pack_unit(int64_t user_range, int64_t item_range, Workspace &own) const {
        const auto pack = [](const Axis<T> &axis, int64_t range, T extra, Packed &packed) {
            if (packed.range == range) return false;
            packed.range = range;
            packed.first = axis.begin(range);
            axis.pack(packed.first, axis.begin(range + 1), extra, packed.factors, packed.bias);
            return true;
        };
        pack(users, user_range, *static_cast<const T *>(call.global_bias), own.users);
        if (!pack(items, item_range, T(0), own.items)) return;
        const int64_t rows = items.begin(item_range + 1) - own.items.first;
        for (int64_t j = 0; j < rows; j += NR)
            pack_panel<NR>(rank, own.items.factors + j * ld, ld, own.items_by_rank + j * ld);
    }

    // The errors of a block, their row sums added to d_user_bias; returns the sum of their squares.
    double block_errors(const Region &at, double *d_user_bias, Workspace &own) {
        const T *P = own.users.factors + (at.i - own.users.first) * ld;
        const T *Qt = own.items_by_rank + (at.j - own.items.first) * ld;
        const T *bu = own.users.bias + (at.i - own.users.first), *bi = own.items.bias + (at.j - own.items.first);
        Block<T> &block = *own.block;
        const bool prefetching = cells() > CACHED;
        const int64_t whole = at.columns / NR * NR;  // columns; what is left over is read by itself
        double squares = 0;
        std::fill_n(block.column_sums, Block<T>::ITEMS, T(0));
        std::fill(std::begin(block.seen), std::end(block.seen), TileMask(0));
        for (int64_t i = 0; i < at.rows; i += MR) {
            const int64_t rows = std::min<int64_t>(MR, at.rows - i);
            Strip<T> strip, last;
            TileMask seen = ratings.strip({at.i + i, at.j, rows, whole}, strip, block.copy, 0);
            if (whole < at.columns)
                seen |= ratings.strip({at.i + i, at.j + whole, rows, at.columns - whole}, last, block.copy, whole)
                        << whole / NR;
            block.seen[i / MR] = seen;
            const Place next = later(seen ? 1 : LOOK_AHEAD, i, at);
            T *E = block.E + i * Block<T>::ITEMS;
            for (int64_t j = 0; j < at.columns; j += NR) {
                const bool here = contains(seen, j / NR);
                if (prefetching) {
                    ratings.prefetch_words(next.i, next.j + j);
                    if (here || ratings.by_nan()) ratings.prefetch_ratings(next.i, next.j + j);
                }
                if (here) predict_tile(rank, P + i * ld, ld, Qt + j * ld, E + j, Block<T>::ITEMS);
            }
            if (!seen) continue;
            StripErrors<T> errors = {E, Block<T>::ITEMS, block.column_sums, {}, 0};
            for_each_run(seen & first_tiles(whole / NR), NR, whole, [&](int64_t j, int64_t length) {
                ratings.errors(strip, j, j + length, bu + i, bi, errors);
            });
            errors.E += whole;
            errors.column_sums += whole;
            if (contains(seen, whole / NR)) ratings.errors(last, 0, NR, bu + i, bi + whole, errors);
            squares += errors.squares;
            if (!call.gradients) continue;
            for (int64_t r = 0; r < rows; ++r) d_user_bias[i + r] += errors.row_sums[r];
        }
        return squares;
    }

    struct Place {
        int64_t i, j;
    };

    // Where a block's walk is some strips after row i: further down, or at the next block.
    static Place later(int64_t strips, int64_t i, const Region &at) {
        i += strips * MR;
        if (i < at.rows) return {at.i + i, at.j};
        return {at.i + i - round_up(at.rows, MR), at.j + at.columns};
    }

    // The gradient products of a block, over runs of active tiles.
    void block_gradients(const Region &at, int64_t user_range, int64_t item_range, Workspace &own) {
        using B = Block<T>;
        B &block = *own.block;
        block.activate();
        const int64_t whole = rank - rest;
        const T *P = own.users.factors + (at.i - own.users.first) * ld;
        const T *Q = own.items.factors + (at.j - own.items.first) * ld;
        const T *Qt = own.items_by_rank + (at.j - own.items.first) * ld;
        T *dP = users.d_factors + (item_range * users.padded + at.i) * ld;
        T *dQ = items.d_factors + (user_range * items.padded + at.j) * ld;
        double *d_item_bias = items.d_bias + user_range * items.padded + at.j;
        for (int64_t j = 0; j < at.columns; ++j) d_item_bias[j] += double(block.column_sums[j]);
        for (int64_t i = 0; i < at.rows; i += B::CELL_USERS) {
            const int64_t users_here = std::min<int64_t>(B::CELL_USERS, at.rows - i);
            for_each_run(block.active[i / B::CELL_USERS], NR, at.columns, [&](int64_t j, int64_t depth) {
                const T *E = block.E + i * B::ITEMS + j;
                gradient_product<T, B::ITEMS, 1>(users_here, vectors, depth, E, Q + j * ld, dP + i * ld, ld);
                tail_product<T, B::ITEMS>(users_here, rest, round_up(depth, NR), E, Qt + j * ld + whole * NR,
                                         dP + i * ld + whole, ld);
            });
        }
        for (int64_t j = 0; j < at.columns; j += ACCUMULATORS)
            for_each_run(block.active_cells(j, ACCUMULATORS), B::CELL_USERS, at.rows, [&](int64_t i, int64_t depth) {
                gradient_product<T, 1, B::ITEMS>(std::min<int64_t>(ACCUMULATORS, at.columns - j), vectors, depth,
                                        block.E + i * B::ITEMS + j, P + i * ld, dQ + j * ld, ld);
            });
        for (int64_t j = 0; rest && j < at.columns; j += NR)
            for_each_run(block.active_cells(j, NR), B::CELL_USERS, at.rows, [&](int64_t i, int64_t depth) {
                transposed_tail_product<T, B::ITEMS>(rest, depth, block.E + i * B::ITEMS + j, P + i * ld + whole,
                                            dQ + j * ld + whole, ld);
            });
    }
};

template <class T> void run(const Call &call, Arena &arena) {
    Matrix ratings = call.ratings, mask = call.mask;
    // Users and items change places where that makes the items the contiguous side, or the longer one if both are.
    const bool exchange = mask.kind != BITS && ratings.row_stride == 1 &&
                          (ratings.column_stride != 1 || call.items.count < call.users.count);
    if (exchange) {
        std::swap(ratings.row_stride, ratings.column_stride);
        std::swap(mask.row_stride, mask.column_stride);
    }
    const Side &users = exchange ? call.items : call.users, &items = exchange ? call.users : call.items;
    Step<T>(call, users, items, ratings, mask).run(arena);
}

thread_local Arena arena;

}  // namespace
}  // namespace mf

// One step; returns 0, or 1 where memory ran out.
extern "C" __attribute__((visibility("default"))) int mf_step(const mf::Call *call) {
    try {
        if (call->double_parameters) mf::run<double>(*call, mf::arena);
        else mf::run<float>(*call, mf::arena);
    } catch (const std::bad_alloc &) {
        return 1;
    }
    return 0;
}

// Multiplies and adds in float32 on all threads, `rounds` times over; returns how many operations that were.
extern "C" __attribute__((visibility("default"))) double mf_multiply_and_add(int64_t threads, int64_t rounds) {
    return mf::multiply_and_add_on(threads, rounds);
}

// Frees what the calling thread's steps keep for the next one.
extern "C" __attribute__((visibility("default"))) void mf_release() { mf::arena.release(); }
