// The fused step on a CPU: errors, loss and every gradient in one pass over the ratings.
//
//     E = P Q' + bu + bi' + mu - R where observed, else 0;   loss = sum E^2
//     dP = E Q,  dQ = E' P,  dbu = E 1,  dbi = E' 1          (doubled and regularised at the end)
//
// The matrix is cut into a grid of units, one task each. A unit walks blocks of errors that stay in L1/L2: first the
// errors, by register tiles of MR users x NR items, then the two gradient products. Each unit has its own slices of
// the partial gradients, summed at the end in a fixed order: results depend on the number of threads asked for,
// never on their timing.

#include <cmath>

#include "parallel.h"
#include "ratings.h"
#include "simd.h"

namespace {

constexpr int64_t CHAIN = 64;  // products of a prediction that are added up in one chain of roundings

int64_t round_up(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }
int64_t ceil_div(int64_t count, int64_t size) { return (count + size - 1) / size; }

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
    static constexpr int USERS = 96, ITEMS = CELL_ITEMS * (CELL_ITEMS < 96 ? 96 / CELL_ITEMS : 1);
    static constexpr int USER_CELLS = USERS / CELL_USERS, ITEM_CELLS = ITEMS / CELL_ITEMS;
    static_assert(USERS % CELL_USERS == 0 && CELL_USERS % MR == 0 && CELL_ITEMS % ACCUMULATORS == 0);

    T E[USERS * ITEMS];
    T column_sums[ITEMS];
    bool seen[USERS / MR][ITEMS / Simd<T>::NR];  // register tiles with an observed rating; the others are not written
    bool active[USER_CELLS][ITEM_CELLS];         // cells with one, all written
    typename Ratings<T>::Copy copy;
};

// ---------------------------------------------------------------- the inner loops

template <class T> struct StripSums {  // of MR users
    typename Simd<T>::Vector squares, rows[MR];
};

// Errors of MR users x NR items and their sums. Pt: [rank, MR]; Qt: [rank, NR]; E: [MR, NR], rows Block::ITEMS
// apart.
template <class T, Missing how>
ALWAYS_INLINE void errors(int64_t rank, const T *Pt, const T *Qt, const T *user_bias, const T *item_bias,
                          const Observations<T> observed, T *E, StripSums<T> &sums, T *column_sums) {
    using V = typename Simd<T>::Vector;
    using Lanes = typename Simd<T>::Lanes;
    constexpr int NV = Simd<T>::NV, LANES = Simd<T>::LANES, lde = Block<T>::ITEMS;
    V e[MR][NV] = {};
    for (int64_t begin = 0; begin < rank; begin += CHAIN) {
        if (begin) {  // a long sum loses less in pieces; those before this one wait in E
#pragma GCC unroll 16
            for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
                for (int v = 0; v < NV; ++v) {
                    T *sum = E + i * lde + v * LANES;
                    store(sum, begin == CHAIN ? e[i][v] : e[i][v] + load<V>(sum));
                    e[i][v] = V{};
                }
        }
        const int64_t end = std::min(begin + CHAIN, rank);
#pragma GCC unroll 4
        for (int64_t k = begin; k < end; ++k, Pt += MR, Qt += Simd<T>::NR) {
            V q[NV];
#pragma GCC unroll 4
            for (int v = 0; v < NV; ++v) q[v] = load<V>(Qt + v * LANES);
#pragma GCC unroll 16
            for (int i = 0; i < MR; ++i) {
                const T p = Pt[i];
#pragma GCC unroll 4
                for (int v = 0; v < NV; ++v) e[i][v] += p * q[v];
            }
        }
    }
    if (rank > CHAIN) {
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
            for (int v = 0; v < NV; ++v) e[i][v] += load<V>(E + i * lde + v * LANES);
    }

    V columns[NV], squares = sums.squares;
    for (int v = 0; v < NV; ++v) columns[v] = load<V>(column_sums + v * LANES);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
        V row = sums.rows[i];
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) {
            const V rating = observed.template rating<how>(i, v);
            const V difference = e[i][v] + user_bias[i] + load<V>(item_bias + v * LANES) - rating;
            const V error = (V)((Lanes)difference & ~observed.template missing<how>(i, v, rating));
            store(E + i * lde + v * LANES, error);
            squares += error * error;
            row += error;
            columns[v] += error;
        }
        sums.rows[i] = row;
    }
    sums.squares = squares;
    for (int v = 0; v < NV; ++v) store(column_sums + v * LANES, columns[v]);
}

// C[r, :] += sum over d < depth of E[r, d] B[d, :] for ROWS rows and W vectors; the rows of B and C lie ld apart.
// E is read through its strides: one routine for E Q and E' P.
template <class T, int W, int64_t row_stride, int64_t depth_stride>
ALWAYS_INLINE void product(int64_t depth, const T *E, const T *B, T *C, int64_t ld) {
    using V = typename Simd<T>::Vector;
    constexpr int ROWS = ACCUMULATORS / W, LANES = Simd<T>::LANES;
    V c[ROWS][W] = {};
    for (int64_t d = 0; d < depth; ++d, E += depth_stride, B += ld) {
        if constexpr (ROWS < W) {  // the shorter side of the outer product waits in registers: that is all there are
            V e[ROWS];
#pragma GCC unroll 24
            for (int r = 0; r < ROWS; ++r) e[r] = E[r * row_stride] - V{};
#pragma GCC unroll 4
            for (int w = 0; w < W; ++w) {
                V b = load<V>(B + w * LANES);
                keep(b);
#pragma GCC unroll 24
                for (int r = 0; r < ROWS; ++r) c[r][w] += e[r] * b;
            }
        } else {
            V b[W];
#pragma GCC unroll 4
            for (int w = 0; w < W; ++w) b[w] = load<V>(B + w * LANES);
#pragma GCC unroll 24
            for (int r = 0; r < ROWS; ++r) {
                const T e = E[r * row_stride];
#pragma GCC unroll 4
                for (int w = 0; w < W; ++w) c[r][w] += e * b[w];
            }
        }
    }
#pragma GCC unroll 24
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
        for (int w = 0; w < W; ++w) {
            T *to = C + r * ld + w * LANES;
            store(to, load<V>(to) + c[r][w]);
        }
}

// The same for any number of rows, rounded up to ROWS, and of vectors.
template <class T, int64_t row_stride, int64_t depth_stride>
void product(int64_t rows, int64_t vectors, int64_t depth, const T *E, const T *B, T *C, int64_t ld) {
    const int64_t chunks = ceil_div(vectors, 4);
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int64_t width = vectors / (chunks - chunk);
        for (int64_t r = 0; r < rows; r += ACCUMULATORS / width) {
            const T *e = E + r * row_stride;
            T *c = C + r * ld;
            if (width == 4) product<T, 4, row_stride, depth_stride>(depth, e, B, c, ld);
            if (width == 3) product<T, 3, row_stride, depth_stride>(depth, e, B, c, ld);
            if (width == 2) product<T, 2, row_stride, depth_stride>(depth, e, B, c, ld);
            if (width == 1) product<T, 1, row_stride, depth_stride>(depth, e, B, c, ld);
        }
        vectors -= width;
        B += width * Simd<T>::LANES;
        C += width * Simd<T>::LANES;
    }
}

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
    static constexpr int64_t TASK_ROWS = 4 * Block<T>::CELL_ITEMS;  // of packing and finishing

    struct PackedSide {
        Side given;
        int64_t cell, padded, ranges;         // rows of a cell, of all cells; units along this side
        T *factors, *by_rank, *bias;          // [padded, ld], [padded / tile, rank, tile], [padded]; tile: MR or NR
        T *d_factors;                         // partial, one for each unit along the other side: [.., padded, ld]
        double *d_bias;                       // [.., padded]

        int64_t begin(int64_t range) const { return range * (padded / cell) / ranges * cell; }  // whole cells, evenly
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
    Ratings<T> ratings;
    double *sse, *norms, *bias_sums;  // per unit, per packing task, per finishing task
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
        const int64_t user_tasks = ceil_div(users.padded, TASK_ROWS);
        const int64_t tasks = user_tasks + ceil_div(items.padded, TASK_ROWS);
        const int64_t units = users.ranges * items.ranges;
        const T global_bias = *static_cast<const T *>(call.global_bias);
        const int64_t copied = (users.padded + items.padded) * ld;  // another thread is worth some 10 us of work
        const int64_t copiers = std::min(call.threads, 1 + copied / (1 << 15));
        parallel(copiers, tasks, [&](int64_t task, int64_t) {
            norms[task] = task < user_tasks ? pack<MR>(users, task * TASK_ROWS, global_bias)
                                            : pack<NR>(items, (task - user_tasks) * TASK_ROWS, T(0));
        });
        parallel(call.threads, units, [&](int64_t unit, int64_t thread) {
            if (ratings.how == Missing::BY_MASK) run_unit<Missing::BY_MASK>(unit, blocks[thread]);
            if (ratings.how == Missing::BY_NAN) run_unit<Missing::BY_NAN>(unit, blocks[thread]);
            if (ratings.how == Missing::BY_CODE) run_unit<Missing::BY_CODE>(unit, blocks[thread]);
        });
        *call.loss = sum(sse, units) + call.reg * sum(norms, tasks);
        if (!call.gradients) return;
        parallel(copiers, tasks, [&](int64_t task, int64_t) {
            bias_sums[task] = task < user_tasks ? finish(users, items.ranges, task * TASK_ROWS)
                                                : finish(items, users.ranges, (task - user_tasks) * TASK_ROWS);
        });
        *static_cast<T *>(call.d_global_bias) = T(2 * sum(bias_sums, user_tasks));
    }

  private:
    static double sum(const double *values, int64_t count) {
        double total = 0;
        for (int64_t i = 0; i < count; ++i) total += values[i];
        return total;
    }

    // About four units a thread, so that uneven ones even out, near square, and none too small to be worth a task.
    void cut() {
        const double m = double(users.given.count), n = double(items.given.count);
        const double units = std::max(1.0, std::min(4.0 * double(call.threads), m * n * double(rank) / (1 << 19)));
        const double along_users = std::min(units, std::max(1.0, std::sqrt(units * m / n)));
        cut(users, Block<T>::CELL_USERS, along_users);
        cut(items, Block<T>::CELL_ITEMS, units / double(users.ranges));
    }

    static void cut(PackedSide &side, int64_t cell, double ranges) {
        side.cell = cell;
        side.padded = round_up(side.given.count, cell);
        side.ranges = std::max<int64_t>(1, std::min(side.padded / cell, int64_t(ranges + 0.5)));
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
                place(side->by_rank, side->padded * rank);
                place(side->bias, side->padded);
                place(side->d_factors, partials * side->padded * ld);
                place(side->d_bias, partials * side->padded);
            }
            place(sse, users.ranges * items.ranges);
            const int64_t tasks = ceil_div(users.padded, TASK_ROWS) + ceil_div(items.padded, TASK_ROWS);
            place(norms, tasks);
            place(bias_sums, tasks);
            place(blocks, call.threads);
            if (!measured) base = arena.reserve(used);
        }
    }

    // Copies the rows of one task into padded buffers; returns the sum of their squares.
    template <int TILE> double pack(PackedSide &side, int64_t begin, T global_bias) {
        static_assert(TASK_ROWS % TILE == 0);
        double norm = 0;
        for (int64_t i = begin; i < std::min(begin + TASK_ROWS, side.padded); i += TILE) {
            for (int64_t r = i; r < i + TILE; ++r) norm += pack_row(side, r, global_bias);
            const T *rows = side.factors + i * ld;
            T *tile = side.by_rank + i * rank;
            for (int64_t k = 0; k < rank; ++k)
                for (int r = 0; r < TILE; ++r) tile[k * TILE + r] = rows[r * ld + k];
        }
        return norm;
    }

    double pack_row(PackedSide &side, int64_t i, T global_bias) {
        const Side &given = side.given;
        T *row = side.factors + i * ld, bias = 0;
        if (i < given.count) {
            const T *from = static_cast<const T *>(given.factors) + i * given.row_stride;
            if (given.column_stride == 1) std::copy_n(from, rank, row);
            else for (int64_t k = 0; k < rank; ++k) row[k] = from[k * given.column_stride];
            std::fill_n(row + rank, ld - rank, T(0));
            bias = static_cast<const T *>(given.bias)[i * given.bias_stride];
        } else {
            std::fill_n(row, ld, T(0));
        }
        side.bias[i] = bias + global_bias;
        return squared_norm(row) + double(bias) * double(bias);
    }

    double squared_norm(const T *row) const {  // padding included, which is zero
        double lanes[LANES] = {};
        for (int64_t k = 0; k < ld; k += LANES)
            for (int lane = 0; lane < LANES; ++lane) lanes[lane] += double(row[k + lane]) * double(row[k + lane]);
        return sum(lanes, LANES);
    }

    template <Missing how> void run_unit(int64_t unit, Block<T> &block) {
        const int64_t user_range = unit / items.ranges, item_range = unit % items.ranges;
        const int64_t i_begin = users.begin(user_range), i_end = users.end(user_range);
        const int64_t j_begin = items.begin(item_range), j_end = items.end(item_range);
        if (call.gradients) {
            users.clear(item_range, user_range, ld);
            items.clear(user_range, item_range, ld);
        }
        sse[unit] = 0;
        for (int64_t i = i_begin; i < i_end; i += Block<T>::USERS)
            for (int64_t j = j_begin; j < j_end; j += Block<T>::ITEMS) {
                const int64_t rows = std::min<int64_t>(Block<T>::USERS, i_end - i);
                const int64_t columns = std::min<int64_t>(Block<T>::ITEMS, j_end - j);
                const int64_t user_at = item_range * users.padded + i, item_at = user_range * items.padded + j;
                sse[unit] += block_errors<how>(i, rows, j, columns, users.d_bias + user_at, block);
                if (call.gradients) block_gradients(i, rows, j, columns, user_at, item_at, block);
            }
    }

    // The errors of a block, their row sums added to d_user_bias; returns the sum of their squares.
    template <Missing how>
    double block_errors(int64_t i0, int64_t rows, int64_t j0, int64_t columns, double *d_user_bias, Block<T> &block) {
        double squares = 0;
        std::fill_n(block.column_sums, Block<T>::ITEMS, T(0));
        std::memset(block.seen, 0, sizeof block.seen);
        for (int64_t i = 0; i < rows; i += MR) {
            StripSums<T> sums = {};
            bool any = false;
            const bool last = i + MR >= rows;
            for (int64_t j = 0; j < columns; j += NR) {
                const auto observed = ratings.tile(i0 + i, j0 + j, rows - i, columns - j, block.copy);
                const bool seen = observed.template any<how>();
                // what comes here next: the strip below, or the next block's first
                ratings.prefetch(last ? i0 : i0 + i + MR, last ? j0 + j + Block<T>::ITEMS : j0 + j, seen);
                if (!seen) continue;
                any = block.seen[i / MR][j / NR] = true;
                errors<T, how>(rank, users.by_rank + (i0 + i) * rank, items.by_rank + (j0 + j) * rank,
                               users.bias + i0 + i, items.bias + j0 + j, observed,
                               block.E + i * Block<T>::ITEMS + j, sums, block.column_sums + j);
            }
            if (!any) continue;
            squares += sum_lanes<T>(sums.squares);
            if (!call.gradients) continue;
            for (int64_t r = i; r < std::min(i + MR, rows); ++r) d_user_bias[r] += sum_lanes<T>(sums.rows[r - i]);
        }
        return squares;
    }

    // Finds the active cells of a block and writes zeros where they have seen nothing.
    static void activate(Block<T> &block) {
        constexpr int HIGH = Block<T>::CELL_USERS / MR, WIDE = Block<T>::CELL_ITEMS / NR;  // register tiles of a cell
        std::memset(block.active, 0, sizeof block.active);
        for (int i = 0; i < Block<T>::USERS / MR; ++i)
            for (int j = 0; j < Block<T>::ITEMS / NR; ++j) block.active[i / HIGH][j / WIDE] |= block.seen[i][j];
        for (int i = 0; i < Block<T>::USERS / MR; ++i)
            for (int j = 0; j < Block<T>::ITEMS / NR; ++j)
                if (block.active[i / HIGH][j / WIDE] && !block.seen[i][j])
                    for (int r = i * MR; r < (i + 1) * MR; ++r)
                        std::fill_n(block.E + r * Block<T>::ITEMS + j * NR, NR, T(0));
    }

    // The gradient products of a block, over runs of active cells.
    void block_gradients(int64_t i0, int64_t rows, int64_t j0, int64_t columns, int64_t user_at, int64_t item_at,
                         Block<T> &block) {
        using B = Block<T>;
        activate(block);
        const T *P = users.factors + i0 * ld, *Q = items.factors + j0 * ld;
        T *dP = users.d_factors + user_at * ld, *dQ = items.d_factors + item_at * ld;
        for (int64_t j = 0; j < columns; ++j) items.d_bias[item_at + j] += double(block.column_sums[j]);
        for (int64_t cell = 0, i = 0; i < rows; ++cell, i += B::CELL_USERS)
            for_runs(B::ITEM_CELLS, B::CELL_ITEMS, columns, [&](int64_t other) { return block.active[cell][other]; },
                     [&](int64_t j, int64_t depth) {
                         product<T, B::ITEMS, 1>(std::min<int64_t>(B::CELL_USERS, rows - i), vectors, depth,
                                                 block.E + i * B::ITEMS + j, Q + j * ld, dP + i * ld, ld);
                     });
        for (int64_t cell = 0, j = 0; j < columns; ++cell, j += B::CELL_ITEMS)
            for_runs(B::USER_CELLS, B::CELL_USERS, rows, [&](int64_t other) { return block.active[other][cell]; },
                     [&](int64_t i, int64_t depth) {
                         product<T, 1, B::ITEMS>(std::min<int64_t>(B::CELL_ITEMS, columns - j), vectors, depth,
                                                 block.E + i * B::ITEMS + j, P + i * ld, dQ + j * ld, ld);
                     });
    }

    // Sums the partial gradients in a fixed order, regularises and doubles; returns the sum of the bias partials.
    double finish(PackedSide &side, int64_t partials, int64_t begin) {
        const Side &given = side.given;
        const T reg = T(call.reg);
        double bias_sum = 0;
        for (int64_t i = begin; i < std::min(begin + TASK_ROWS, given.count); ++i) {
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

}  // namespace

// One step; returns 0, or 1 where memory ran out.
extern "C" __attribute__((visibility("default"))) int mf_step(const Call *call) {
    static thread_local Arena arena;
    try {
        if (call->double_parameters) run<double>(*call, arena);
        else run<float>(*call, arena);
    } catch (const std::bad_alloc &) {
        return 1;
    }
    return 0;
}
