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

#include "arena.h"
#include "pool.h"
#include "products.h"
#include "ratings.h"

namespace {

struct Side {  // users or items, as the caller has them
    int64_t count;
    const void *factors;  // [count, rank]
    int64_t row_stride, column_stride;
    const void *bias;  // [count]
    int64_t bias_stride;
    void *d_factors, *d_bias;  // contiguous
};

struct Call {  // laid out as launch.py packs it
    Side users, items;
    Matrix ratings, mask;
    int64_t rank, double_parameters, threads, gradients;
    const void *global_bias;
    void *d_global_bias;
    double *loss;
    double reg, scale, offset;  // of codes: rating = code * scale + offset
};

template <class T> struct Block : Simd<T> {
    // A cell is the grain of the gradient products: whole register tiles, and whole groups of product rows.
    static constexpr int CELL_USERS = ACCUMULATORS, CELL_ITEMS = 3 * Simd<T>::NR;
    // Ratings are read in runs of 1.5 KiB, long enough for the hardware to fetch ahead; the errors stay in L2.
    static constexpr int USERS = 96, ITEMS = CELL_ITEMS * (1536 / int(sizeof(T)) / CELL_ITEMS);
    static constexpr int USER_CELLS = USERS / CELL_USERS, TILES = ITEMS / Simd<T>::NR;
    static_assert(USERS % CELL_USERS == 0 && CELL_USERS % MR == 0 && CELL_ITEMS % ACCUMULATORS == 0);

    T E[USERS * ITEMS];
    T column_sums[ITEMS];
    bool any;                        // whether one of its ratings is observed
    bool seen[USERS / MR][TILES];    // register tiles with an observed rating; the others are not written
    bool active[USER_CELLS][TILES];  // tiles of a cell's users with one; all of their cell is written
    typename Ratings<T, ITEMS>::Copy copy;
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

// ---------------------------------------------------------------- the step

template <class T> class Step {
    static constexpr int LANES = Simd<T>::LANES, NR = Simd<T>::NR;
    static constexpr int64_t TASK_ROWS = 2 * Block<T>::CELL_ITEMS, UNITS = 8;
    static constexpr int64_t FAR = 8;  // strips to look ahead where nothing is seen, since such strips are soon done

    struct PackedSide {
        Side given;
        int64_t cell, padded, ranges;         // rows of a cell, of all cells; units along this side
        T *factors, *bias;                    // [padded, ld], [padded]
        T *d_factors;                         // partial, one for each unit along the other side: [.., padded, ld]
        double *d_bias;                       // [.., padded]

        int64_t begin(int64_t range) const { return begin(range, ranges); }
        int64_t begin(int64_t range, int64_t of) const { return range * (padded / cell) / of * cell; }  // whole cells
        int64_t end(int64_t range) const { return std::min(begin(range + 1), given.count); }

        void clear(int64_t partial, int64_t range, int64_t ld) {
            const int64_t at = partial * padded + begin(range), rows = begin(range + 1) - begin(range);
            std::fill_n(d_factors + at * ld, rows * ld, T(0));
            std::fill_n(d_bias + at, rows, 0.0);
        }
    };

    const Call &call;
    const int64_t rank, vectors, ld;
    PackedSide users, items;
    Ratings<T, Block<T>::ITEMS> ratings;
    int64_t tasks;                    // of packing and finishing: each takes its share of both sides
    double *sse, *norms, *bias_sums;  // per unit, per task, per task
    T *items_by_rank;                 // [padded / NR, rank, NR]
    Block<T> *blocks;                 // one for each thread

  public:
    Step(const Call &call, const Side &user_side, const Side &item_side, const Matrix &ratings, const Matrix &mask)
        : call(call), rank(call.rank), vectors(ceil_div(rank, LANES)),
          // rows of a multiple of 512 bytes would share a few cache sets
          ld(vectors * LANES + (vectors * VECTOR_BYTES % 512 ? 0 : 64 / int(sizeof(T)))), users{}, items{},
          ratings(ratings, mask, call.scale, call.offset) {
        users.given = user_side;
        items.given = item_side;
        cut();
    }

    void run(Arena &arena) {
        place(arena);
        const int64_t units = users.ranges * items.ranges;
        const T global_bias = *static_cast<const T *>(call.global_bias);
        const Pool::Lease pool(call.threads);
        pool.parallel(call.threads, tasks, [&](int64_t task, int64_t) {
            norms[task] = pack(users, task, global_bias) + pack(items, task, T(0));
            for (int64_t j = items.begin(task, tasks); j < items.begin(task + 1, tasks); j += NR)
                transpose<NR>(rank, items.factors + j * ld, ld, items_by_rank + j * rank);
        });
        pool.parallel(call.threads, units, [&](int64_t unit, int64_t thread) { run_unit(unit, blocks[thread]); });
        *call.loss = sum(sse, units) + call.reg * sum(norms, tasks);
        if (!call.gradients) return;
        pool.parallel(call.threads, tasks, [&](int64_t task, int64_t) {
            bias_sums[task] = finish(users, items.ranges, task);
            finish(items, users.ranges, task);
        });
        *static_cast<T *>(call.d_global_bias) = T(2 * sum(bias_sums, tasks));
    }

  private:
    static double sum(const double *values, int64_t count) {
        double total = 0;
        for (int64_t i = 0; i < count; ++i) total += values[i];
        return total;
    }

    // As many units for every thread, up to UNITS so that uneven ones even out, and none too small to be worth a task.
    void cut() {
        const double m = double(users.given.count), n = double(items.given.count);
        const int64_t worth = int64_t(m * n * double(rank) / (1 << 19)), threads = call.threads;
        const int64_t units = worth < threads ? std::max<int64_t>(1, worth)
                                              : threads * std::min(UNITS, 1 + worth / threads / 2);
        users.cell = Block<T>::CELL_USERS;
        items.cell = Block<T>::CELL_ITEMS;
        for (PackedSide *side : {&users, &items}) side->padded = round_up(side->given.count, side->cell);
        double least = std::numeric_limits<double>::infinity();
        for (int64_t along_users = 1; along_users <= units; ++along_users) {
            if (units % along_users) continue;
            // a unit's partial gradients have as many rows as it has users and items
            const double rows = m / double(along_users) + n / double(units / along_users);
            if (rows >= least) continue;
            least = rows;
            users.ranges = std::min(along_users, users.padded / users.cell);
            items.ranges = std::min(units / along_users, items.padded / items.cell);
        }
        tasks = ceil_div(std::max(users.padded, items.padded), TASK_ROWS);
    }

    void place(Arena &arena) {
        char *base = nullptr;
        for (bool measured : {false, true}) {
            int64_t used = 0;
            const auto place = [&](auto *&pointer, int64_t count) {
                if (measured) pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(base + used);
                used += round_up(count * int64_t(sizeof *pointer), 64);
            };
            for (PackedSide *side : {&users, &items}) {
                const int64_t partials = call.gradients ? (side == &users ? items : users).ranges : 0;
                place(side->factors, side->padded * ld);
                place(side->bias, side->padded);
                place(side->d_factors, partials * side->padded * ld);
                place(side->d_bias, partials * side->padded);
            }
            place(items_by_rank, items.padded * rank);
            place(sse, users.ranges * items.ranges);
            place(norms, tasks);
            place(bias_sums, tasks);
            place(blocks, call.threads);
            if (!measured) base = arena.reserve(used);
        }
    }

    // Copies a task's share of the rows into padded buffers; returns the sum of their squares.
    double pack(PackedSide &side, int64_t task, T global_bias) {
        const Side &given = side.given;
        const int64_t begin = side.begin(task, tasks), end = side.begin(task + 1, tasks);
        double norm = 0;
        for (int64_t i = begin; i < end; ++i) {
            T bias = 0, *row = side.factors + i * ld;
            if (i < given.count) {
                copy_row(static_cast<const T *>(given.factors) + i * given.row_stride, given.column_stride, row);
                bias = static_cast<const T *>(given.bias)[i * given.bias_stride];
            } else {
                std::fill_n(row, ld, T(0));
            }
            side.bias[i] = bias + global_bias;
            norm += double(bias) * double(bias);
        }
        for (int64_t i = begin; i < end; ++i) norm += squared_norm(side.factors + i * ld);
        return norm;
    }

    void copy_row(const T *from, int64_t stride, T *row) const {
        using V = typename Simd<T>::Vector;
        int64_t k = 0;
        if (stride == 1)
            for (; k + LANES <= rank; k += LANES) store(row + k, load<V>(from + k));
        for (; k < rank; ++k) row[k] = from[k * stride];
        for (; k < ld; ++k) row[k] = 0;
    }

    double squared_norm(const T *row) const {  // in float64 throughout
        using Doubles = typename Simd<double>::Vector;
        Doubles squares = {};
        for (int64_t k = 0; k < ld; k += Simd<double>::LANES) {
            const Doubles values = load_doubles(row + k);
            squares += values * values;
        }
        return sum_lanes<double>(squares);
    }

    void run_unit(int64_t unit, Block<T> &block) {
        const int64_t user_range = unit / items.ranges, item_range = unit % items.ranges;
        const int64_t i_begin = users.begin(user_range), i_end = users.end(user_range);
        const int64_t j_begin = items.begin(item_range), j_end = items.end(item_range);
        if (call.gradients) {
            users.clear(item_range, user_range, ld);
            items.clear(user_range, item_range, ld);
        }
        sse[unit] = 0;
        for (int64_t i = i_begin; i < i_end; i += Block<T>::USERS)
            for (int64_t j = j_begin, columns; j < j_end; j += columns) {
                const int64_t rows = std::min<int64_t>(Block<T>::USERS, i_end - i);
                columns = std::min<int64_t>(Block<T>::ITEMS, j_end - j);
                // a ragged end is read through a copy: it has a block of its own
                if (columns % NR && columns > Block<T>::CELL_ITEMS) columns -= columns % Block<T>::CELL_ITEMS;
                const int64_t user_at = item_range * users.padded + i, item_at = user_range * items.padded + j;
                sse[unit] += block_errors(i, rows, j, columns, users.d_bias + user_at, block);
                if (call.gradients && block.any) block_gradients(i, rows, j, columns, user_at, item_at, block);
            }
    }

    // The errors of a block, their row sums added to d_user_bias; returns the sum of their squares.
    double block_errors(int64_t i0, int64_t rows, int64_t j0, int64_t columns, double *d_user_bias, Block<T> &block) {
        double squares = 0;
        std::fill_n(block.column_sums, Block<T>::ITEMS, T(0));
        std::memset(block.seen, 0, sizeof block.seen);
        block.any = false;
        for (int64_t i = 0; i < rows; i += MR) {
            bool *seen = block.seen[i / MR];
            Strip<T> strip;
            const Region at = {i0 + i, j0, std::min<int64_t>(MR, rows - i), columns};
            const bool any = ratings.strip(at, strip, seen, block.copy);
            const Place next = later(any ? 1 : FAR, i0, i, rows, j0, columns);
            T *E = block.E + i * Block<T>::ITEMS;
            for (int64_t j = 0; j < columns; j += NR) {
                ratings.prefetch_words(next.i, next.j + j);
                if (seen[j / NR] || ratings.by_nan()) ratings.prefetch_ratings(next.i, next.j + j);
                if (seen[j / NR])
                    predict(rank, users.factors + (i0 + i) * ld, ld, items_by_rank + (j0 + j) * rank, E + j,
                            Block<T>::ITEMS);
            }
            if (!any) continue;
            block.any = true;
            StripErrors<T> errors = {E, Block<T>::ITEMS, block.column_sums, {}, 0};
            for_runs(ceil_div(columns, NR), NR, strip.columns, [&](int64_t tile) { return seen[tile]; },
                     [&](int64_t j, int64_t length) {
                         ratings.errors(strip, j, j + length, users.bias + i0 + i, items.bias + j0, errors);
                     });
            squares += errors.squares;
            if (!call.gradients) continue;
            for (int64_t r = 0; r < strip.rows; ++r) d_user_bias[i + r] += errors.row_sums[r];
        }
        return squares;
    }

    struct Place {
        int64_t i, j;
    };

    // Where a block's walk is some strips after row i: further down, or at the next block.
    static Place later(int64_t strips, int64_t i0, int64_t i, int64_t rows, int64_t j0, int64_t columns) {
        i += strips * MR;
        if (i < rows) return {i0 + i, j0};
        return {i0 + i - round_up(rows, MR), j0 + columns};
    }

    // Finds the active tiles of a block, and writes zeros where cells with one have seen nothing.
    static void activate(Block<T> &block) {
        constexpr int HIGH = Block<T>::CELL_USERS / MR, WIDE = Block<T>::CELL_ITEMS / NR;  // register tiles of a cell
        std::memset(block.active, 0, sizeof block.active);
        for (int i = 0; i < Block<T>::USERS / MR; ++i)
            for (int j = 0; j < Block<T>::TILES; ++j) block.active[i / HIGH][j] |= block.seen[i][j];
        for (int i = 0; i < Block<T>::USERS / MR; ++i)
            for (int j = 0; j < Block<T>::TILES; ++j) {
                const bool *cell = block.active[i / HIGH] + j / WIDE * WIDE;
                if (block.seen[i][j] || !std::any_of(cell, cell + WIDE, [](bool active) { return active; })) continue;
                for (int r = i * MR; r < (i + 1) * MR; ++r)
                    std::fill_n(block.E + r * Block<T>::ITEMS + j * NR, NR, T(0));
            }
    }

    // The gradient products of a block, over runs of active tiles.
    void block_gradients(int64_t i0, int64_t rows, int64_t j0, int64_t columns, int64_t user_at, int64_t item_at,
                         Block<T> &block) {
        using B = Block<T>;
        activate(block);
        const T *P = users.factors + i0 * ld, *Q = items.factors + j0 * ld;
        T *dP = users.d_factors + user_at * ld, *dQ = items.d_factors + item_at * ld;
        for (int64_t j = 0; j < columns; ++j) items.d_bias[item_at + j] += double(block.column_sums[j]);
        for (int64_t i = 0; i < rows; i += B::CELL_USERS) {
            const bool *active = block.active[i / B::CELL_USERS];
            for_runs(B::TILES, NR, columns, [&](int64_t tile) { return active[tile]; },
                     [&](int64_t j, int64_t depth) {
                         product<T, B::ITEMS, 1>(std::min<int64_t>(B::CELL_USERS, rows - i), vectors, depth,
                                                 block.E + i * B::ITEMS + j, Q + j * ld, dP + i * ld, ld);
                     });
        }
        for (int64_t j = 0; j < columns; j += ACCUMULATORS) {  // rows of all tiles that they reach into
            const int64_t first = j / NR, last = (j + ACCUMULATORS - 1) / NR;
            const auto active = [&](int64_t cell) {
                const bool *tiles = block.active[cell];
                return std::any_of(tiles + first, tiles + last + 1, [](bool active) { return active; });
            };
            for_runs(B::USER_CELLS, B::CELL_USERS, rows, active, [&](int64_t i, int64_t depth) {
                product<T, 1, B::ITEMS>(std::min<int64_t>(ACCUMULATORS, columns - j), vectors, depth,
                                        block.E + i * B::ITEMS + j, P + i * ld, dQ + j * ld, ld);
            });
        }
    }

    // Sums the partial gradients in a fixed order, regularises and doubles; returns the sum of the bias partials.
    double finish(PackedSide &side, int64_t partials, int64_t task) {
        const Side &given = side.given;
        const T reg = T(call.reg);
        double bias_sum = 0;
        const int64_t end = std::min(side.begin(task + 1, tasks), given.count);
        for (int64_t i = side.begin(task, tasks); i < end; ++i) {
            const T *row = side.factors + i * ld;
            T *to = static_cast<T *>(given.d_factors) + i * rank;
            double d_bias = 0;
            for (int64_t k = 0; k < rank; ++k) to[k] = reg * row[k];
            for (int64_t partial = 0; partial < partials; ++partial) {
                const int64_t at = partial * side.padded + i;
                for (int64_t k = 0; k < rank; ++k) to[k] += side.d_factors[at * ld + k];
                d_bias += side.d_bias[at];
            }
            for (int64_t k = 0; k < rank; ++k) to[k] *= 2;
            const T bias = static_cast<const T *>(given.bias)[i * given.bias_stride];
            static_cast<T *>(given.d_bias)[i] = T(2 * (d_bias + call.reg * double(bias)));
            bias_sum += d_bias;
        }
        return bias_sum;
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

// One step; returns 0, or 1 where memory ran out.
extern "C" __attribute__((visibility("default"))) int mf_step(const Call *call) {
    try {
        if (call->double_parameters) run<double>(*call, arena);
        else run<float>(*call, arena);
    } catch (const std::bad_alloc &) {
        return 1;
    }
    return 0;
}

// Frees what the calling thread's steps keep for the next one.
extern "C" __attribute__((visibility("default"))) void mf_release() { arena.release(); }
