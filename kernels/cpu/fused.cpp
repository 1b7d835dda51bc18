// The fused step on a CPU: residuals, loss and every gradient in one pass over the ratings.
//
//     E = P Q' + (bu + mu) + bi' - R where observed, else 0;   loss = sum E^2
//     dP = E Q,  dQ = E' P,  dbu = E 1,  dbi = E' 1            (doubled and regularised at the end)
//
// The matrix is cut into a grid of units, one task each. A unit walks tiles of BLOCK_USERS x BLOCK_ITEMS errors that
// stay in L1/L2: first all errors, by register tiles of MR users x NR items, then the two gradient products. Each
// unit has its own slices of partial gradients, summed at the end in a fixed order: results depend on the number
// of threads asked for, never on their timing. Plain C++ with GCC/Clang vector extensions; the vector width is
// the target's.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

#ifdef _OPENMP
#include <omp.h>
#else
#include <thread>
#include <vector>
#endif

namespace {

using std::int64_t;

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64, ACCUMULATORS = 24, MR = 12;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32, ACCUMULATORS = 12, MR = 6;
#elif defined(__aarch64__)
constexpr int VECTOR_BYTES = 16, ACCUMULATORS = 24, MR = 6;
#else
constexpr int VECTOR_BYTES = 16, ACCUMULATORS = 12, MR = 6;
#endif

constexpr int64_t CHAIN = 64;  // products of a prediction that are added up in one chain of roundings

constexpr int64_t round_up(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }
constexpr int64_t ceil_div(int64_t count, int64_t size) { return (count + size - 1) / size; }

// ---------------------------------------------------------------- the call, laid out as launch.py packs it

struct Side {  // users or items
    int64_t count;
    const void *factors;  // [count, rank]
    int64_t row_stride, column_stride;
    const void *bias;  // [count]
    int64_t bias_stride;
    void *d_factors, *d_bias;  // contiguous
};

struct Matrix {  // [users, items]
    const void *data;
    int64_t row_stride, column_stride, kind;
};

struct Call {
    Side users, items;
    Matrix ratings, mask;
    int64_t rank, double_parameters, threads, gradients;
    const void *global_bias;
    void *d_global_bias;
    double *loss;
    double reg;
};

enum RatingKind { FLOAT64, FLOAT32, BFLOAT16, FLOAT16, UINT8, INT8 };
enum MaskKind { NO_MASK = 0, IS_FLOAT = 16 };  // otherwise bytes per element, plus IS_FLOAT where the top bit is a sign

// ---------------------------------------------------------------- vectors

template <class T> struct Simd;
template <> struct Simd<float> { using Int = std::int32_t; };
template <> struct Simd<double> { using Int = std::int64_t; };

template <class T> struct Shape {
    static constexpr int LANES = VECTOR_BYTES / sizeof(T);
    typedef T Vector __attribute__((vector_size(VECTOR_BYTES)));
    typedef typename Simd<T>::Int Lanes __attribute__((vector_size(VECTOR_BYTES)));  // all bits set, or none
    typedef std::uint8_t Bytes __attribute__((vector_size(LANES)));

    static constexpr int NV = ACCUMULATORS / MR;
    static constexpr int NR = NV * LANES;
    typedef std::uint8_t ByteRow __attribute__((vector_size(NR)));
    // A cell is the grain of the gradient products: whole register tiles, and whole groups of product rows.
    static constexpr int CELL_USERS = ACCUMULATORS, CELL_ITEMS = 3 * NR;
    static constexpr int BLOCK_USERS = 96, BLOCK_ITEMS = CELL_ITEMS * std::max(1, 96 / CELL_ITEMS);
    static_assert(BLOCK_USERS % CELL_USERS == 0 && CELL_USERS % MR == 0 && CELL_ITEMS % ACCUMULATORS == 0);
};

template <class V> inline V load(const void *from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}
template <class V> inline void store(void *to, V v) { std::memcpy(to, &v, sizeof v); }

template <class T> inline double sum_lanes(typename Shape<T>::Vector v) {
    double sum = 0;
    for (int lane = 0; lane < Shape<T>::LANES; ++lane) sum += double(v[lane]);
    return sum;
}

// ---------------------------------------------------------------- ratings and masks of any dtype and strides

struct BFloat16 { std::uint16_t bits; };
struct Float16 { std::uint16_t bits; };

inline float as_float(std::uint32_t bits) { return load<float>(&bits); }

template <class T, class S> inline T convert(S value) { return T(value); }
template <class T> inline T convert(BFloat16 value) { return T(as_float(std::uint32_t(value.bits) << 16)); }
template <class T> inline T convert(Float16 value) {
    const std::uint32_t sign = std::uint32_t(value.bits & 0x8000) << 16, magnitude = value.bits & 0x7fff;
    const float finite = as_float(magnitude << 13) * 0x1p112f;  // rebias the exponent; exact for subnormals too
    std::uint32_t bits = load<std::uint32_t>(&finite);
    if (magnitude >= 0x7c00) bits = (magnitude << 13) | 0x7f800000;
    return T(as_float(bits | sign));
}

// [rows, columns] of a strided matrix to a dense register tile [MR, NR]; what lies outside keeps its value.
template <class T, class S>
void decode_ratings(const void *from, int64_t row_stride, int64_t column_stride, int rows, int columns, T *tile) {
    constexpr int NR = Shape<T>::NR;
    for (int i = 0; i < rows; ++i) {
        const S *row = static_cast<const S *>(from) + i * row_stride;
        if (columns == NR && column_stride == 1)
            for (int j = 0; j < NR; ++j) tile[i * NR + j] = convert<T>(row[j]);
        else
            for (int j = 0; j < columns; ++j) tile[i * NR + j] = convert<T>(row[j * column_stride]);
    }
}

template <class T, class Bits>
void decode_mask(const void *from, int64_t row_stride, int64_t column_stride, int rows, int columns, bool is_float,
                 std::uint8_t *tile) {
    constexpr int NR = Shape<T>::NR;
    const Bits keep = is_float ? Bits(~Bits(0)) >> 1 : Bits(~Bits(0));  // -0.0 is zero
    for (int i = 0; i < rows; ++i) {
        const Bits *row = static_cast<const Bits *>(from) + i * row_stride;
        if (columns == NR && column_stride == 1)
            for (int j = 0; j < NR; ++j) tile[i * NR + j] = (row[j] & keep) != 0;
        else
            for (int j = 0; j < columns; ++j) tile[i * NR + j] = (row[j * column_stride] & keep) != 0;
    }
}

template <class T> using RatingsDecoder = void (*)(const void *, int64_t, int64_t, int, int, T *);
using MaskDecoder = void (*)(const void *, int64_t, int64_t, int, int, bool, std::uint8_t *);

template <class T> struct Source {  // the observed ratings: hands out register tiles, in place where it can
    Matrix ratings, mask;
    int64_t rating_bytes, mask_bytes;
    bool ratings_direct, mask_direct;
    RatingsDecoder<T> decode_values;
    MaskDecoder decode_observed;

    explicit Source(const Matrix &ratings, const Matrix &mask) : ratings(ratings), mask(mask) {
        static constexpr RatingsDecoder<T> values[] = {decode_ratings<T, double>,       decode_ratings<T, float>,
                                                       decode_ratings<T, BFloat16>,     decode_ratings<T, Float16>,
                                                       decode_ratings<T, std::uint8_t>, decode_ratings<T, std::int8_t>};
        static constexpr int bytes[] = {8, 4, 2, 2, 1, 1};
        decode_values = values[ratings.kind];
        rating_bytes = bytes[ratings.kind];
        mask_bytes = mask.kind & ~IS_FLOAT;
        decode_observed = mask_bytes == 8   ? decode_mask<T, std::uint64_t>
                          : mask_bytes == 4 ? decode_mask<T, std::uint32_t>
                          : mask_bytes == 2 ? decode_mask<T, std::uint16_t>
                                            : decode_mask<T, std::uint8_t>;
        ratings_direct = ratings.kind == (sizeof(T) == 8 ? FLOAT64 : FLOAT32) && ratings.column_stride == 1;
        mask_direct = mask.kind == 1 && mask.column_stride == 1;
    }

    const char *rating(int64_t i, int64_t j) const { return at(ratings, rating_bytes, i, j); }
    const char *observed(int64_t i, int64_t j) const { return at(mask, mask_bytes, i, j); }

  private:
    static const char *at(const Matrix &matrix, int64_t bytes, int64_t i, int64_t j) {
        const int64_t offset = (i * matrix.row_stride + j * matrix.column_stride) * bytes;
        return reinterpret_cast<const char *>(reinterpret_cast<std::intptr_t>(matrix.data) + offset);
    }
};

template <class T> struct RegisterTile {  // the observed ratings of MR users x NR items
    static constexpr int NR = Shape<T>::NR;
    const T *ratings;
    const std::uint8_t *observed;  // unused without a mask
    int64_t rating_stride, observed_stride;
    T ratings_copy[MR * NR];
    std::uint8_t observed_copy[MR * NR];

    void fetch(const Source<T> &source, int64_t i, int64_t j, int rows, int columns) {
        const bool whole = rows == MR && columns == NR, masked = source.mask.kind != NO_MASK;
        if (whole && source.ratings_direct) {
            ratings = reinterpret_cast<const T *>(source.rating(i, j));
            rating_stride = source.ratings.row_stride;
        } else {
            if (!whole) std::fill_n(ratings_copy, MR * NR, masked ? T(0) : std::numeric_limits<T>::quiet_NaN());
            source.decode_values(source.rating(i, j), source.ratings.row_stride, source.ratings.column_stride, rows,
                                 columns, ratings_copy);
            ratings = ratings_copy;
            rating_stride = NR;
        }
        if (!masked) return;
        if (whole && source.mask_direct) {
            observed = reinterpret_cast<const std::uint8_t *>(source.observed(i, j));
            observed_stride = source.mask.row_stride;
        } else {
            if (!whole) std::fill_n(observed_copy, MR * NR, std::uint8_t(0));
            source.decode_observed(source.observed(i, j), source.mask.row_stride, source.mask.column_stride, rows,
                                   columns, source.mask.kind & IS_FLOAT, observed_copy);
            observed = observed_copy;
            observed_stride = NR;
        }
    }

    template <bool masked> typename Shape<T>::Lanes lanes(int i, int v, typename Shape<T>::Vector rating) const {
        if constexpr (masked) {
            const auto bytes = load<typename Shape<T>::Bytes>(observed + i * observed_stride + v * Shape<T>::LANES);
            return __builtin_convertvector(bytes, typename Shape<T>::Lanes) != 0;
        } else {
            return rating == rating;
        }
    }

    template <bool masked> bool any_observed() const {
        if constexpr (masked) {
            using Row = typename Shape<T>::ByteRow;
            Row any = load<Row>(observed);
            for (int i = 1; i < MR; ++i) any |= load<Row>(observed + i * observed_stride);
            std::uint64_t words[(NR + 7) / 8] = {}, all = 0;
            std::memcpy(words, &any, NR);
            for (auto word : words) all |= word;
            return all != 0;
        } else {
            typename Shape<T>::Lanes any = {};
            for (int i = 0; i < MR; ++i)
                for (int v = 0; v < Shape<T>::NV; ++v) {
                    const auto r =
                        load<typename Shape<T>::Vector>(ratings + i * rating_stride + v * Shape<T>::LANES);
                    any |= r == r;
                }
            bool found = false;
            for (int lane = 0; lane < Shape<T>::LANES; ++lane) found |= any[lane] != 0;
            return found;
        }
    }
};

// ---------------------------------------------------------------- the two inner loops

template <class T> struct Sums {  // of one strip of MR users
    typename Shape<T>::Vector squares, rows[MR];
};

// Errors of MR users x NR items, and their sums. P: [MR, rank], rows ld apart; Qt: [rank, NR]; E: rows lde apart.
template <class T, bool masked>
inline void errors(int64_t rank, const T *P, int64_t ld, const T *Qt, const T *user_bias, const T *item_bias,
                   const RegisterTile<T> &tile, T *E, int64_t lde, Sums<T> &sums, T *column_sums) {
    using S = Shape<T>;
    using V = typename S::Vector;
    constexpr int NV = S::NV, LANES = S::LANES;
    V e[MR][NV] = {};
    for (int64_t begin = 0; begin < rank; begin += CHAIN) {
        if (begin) {  // a long sum loses less in pieces; the pieces before this one wait in E
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
        for (int64_t k = begin; k < end; ++k) {
            V q[NV];
#pragma GCC unroll 4
            for (int v = 0; v < NV; ++v) q[v] = load<V>(Qt + k * S::NR + v * LANES);
#pragma GCC unroll 16
            for (int i = 0; i < MR; ++i) {
                const T p = P[i * ld + k];
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
    V columns[NV];
    for (int v = 0; v < NV; ++v) columns[v] = load<V>(column_sums + v * LANES);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) {
            const V rating = load<V>(tile.ratings + i * tile.rating_stride + v * LANES);
            const V prediction = e[i][v] + (user_bias[i] + load<V>(item_bias + v * LANES));
            const auto kept = (typename S::Lanes)(prediction - rating) & tile.template lanes<masked>(i, v, rating);
            const V error = (V)kept;
            store(E + i * lde + v * LANES, error);
            sums.squares += error * error;
            sums.rows[i] += error;
            columns[v] += error;
        }
    for (int v = 0; v < NV; ++v) store(column_sums + v * LANES, columns[v]);
}

// C[r, :] += sum over d < depth of E[r, d] B[d, :] for ROWS rows and W vectors, B's and C's rows ld apart.
// E is read through its strides, so that one routine serves E Q and E' P.
template <class T, int W>
inline void product(int64_t depth, const T *E, int64_t row_stride, int64_t depth_stride, const T *B, T *C,
                    int64_t ld) {
    using V = typename Shape<T>::Vector;
    constexpr int ROWS = ACCUMULATORS / W, LANES = Shape<T>::LANES;
    V c[ROWS][W] = {};
    for (int64_t d = 0; d < depth; ++d) {
        V b[W];
#pragma GCC unroll 4
        for (int w = 0; w < W; ++w) b[w] = load<V>(B + d * ld + w * LANES);
#pragma GCC unroll 24
        for (int r = 0; r < ROWS; ++r) {
            const T e = E[r * row_stride + d * depth_stride];
#pragma GCC unroll 4
            for (int w = 0; w < W; ++w) c[r][w] += e * b[w];
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

// The same for any number of rows (rounded up to ROWS) and of vectors.
template <class T>
void product(int64_t rows, int64_t vectors, int64_t depth, const T *E, int64_t row_stride, int64_t depth_stride,
             const T *B, T *C, int64_t ld) {
    const int64_t chunks = ceil_div(vectors, 4);
    for (int64_t chunk = 0, begin = 0; chunk < chunks; ++chunk) {
        const int64_t width = (vectors - begin) / (chunks - chunk), at = begin * Shape<T>::LANES;
        for (int64_t r = 0; r < rows; r += ACCUMULATORS / width) {
            const T *e = E + r * row_stride;
            T *c = C + r * ld + at;
            if (width == 4) product<T, 4>(depth, e, row_stride, depth_stride, B + at, c, ld);
            if (width == 3) product<T, 3>(depth, e, row_stride, depth_stride, B + at, c, ld);
            if (width == 2) product<T, 2>(depth, e, row_stride, depth_stride, B + at, c, ld);
            if (width == 1) product<T, 1>(depth, e, row_stride, depth_stride, B + at, c, ld);
        }
        begin += width;
    }
}

// ---------------------------------------------------------------- threads and memory

// task(index, thread) for every index < tasks, handed out in order to at most `threads` threads.
template <class Task> void parallel(int64_t threads, int64_t tasks, Task task) {
    threads = std::min(threads, tasks);
    std::atomic<int64_t> next{0};
    auto work = [&](int64_t thread) {
        for (int64_t index; (index = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) task(index, thread);
    };
    if (threads <= 1) return work(0);
#ifdef _OPENMP
#pragma omp parallel num_threads(int(threads))
    work(omp_get_thread_num());
#else
    std::vector<std::thread> others;
    for (int64_t thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
    work(0);
    for (auto &other : others) other.join();
#endif
}

class Arena {  // one growing allocation per calling thread, kept between calls
  public:
    ~Arena() { std::free(data_); }
    void reserve(int64_t bytes) {
        if (bytes > size_) {
            std::free(data_);
            size_ = 0;
            data_ = static_cast<char *>(std::aligned_alloc(4096, size_t(round_up(bytes, 4096))));
            if (!data_) throw std::bad_alloc();
            size_ = bytes;
        }
    }
    char *data() const { return data_; }

  private:
    char *data_ = nullptr;
    int64_t size_ = 0;
};

// ---------------------------------------------------------------- the step

template <class T> class Step {
    using S = Shape<T>;
    using V = typename S::Vector;
    static constexpr int LANES = S::LANES, NR = S::NR;
    static constexpr int BLOCK_USERS = S::BLOCK_USERS, BLOCK_ITEMS = S::BLOCK_ITEMS;
    static constexpr int64_t PACK_ROWS = 16 * S::CELL_ITEMS;  // rows of one packing or finishing task

    struct Packed {  // one side: its parameters padded, its partial gradients, one set for each range of the other side
        Side given;
        int64_t padded, ranges, range;  // rows with padding; ranges that the side is cut into, rows of a range
        T *factors, *bias;              // [padded, ld], [padded]
        T *d_factors;                   // [other.ranges, padded, ld]
        double *d_bias;                 // [other.ranges, padded]
    };

    struct Scratch {  // of one thread
        T E[BLOCK_USERS * BLOCK_ITEMS];
        T column_sums[BLOCK_ITEMS];
        RegisterTile<T> tile;
    };

    const Call &call;
    const int64_t rank, vectors, ld;
    Packed users, items;
    T *items_by_rank;  // [padded / NR, rank, NR]
    Source<T> source;
    double *sse, *d_global, *norms;  // per unit, per unit, per packing task
    Scratch *scratch;

  public:
    Step(const Call &call, Side user_side, Side item_side, Matrix ratings, Matrix mask)
        : call(call), rank(call.rank), vectors(ceil_div(rank, LANES)), ld(row_length(vectors)),
          source(ratings, mask) {
        users.given = user_side;
        items.given = item_side;
        cut();
    }

    void run(Arena &arena) {
        allocate(arena);
        const int64_t user_tasks = ceil_div(users.padded, PACK_ROWS), item_tasks = ceil_div(items.padded, PACK_ROWS);
        const int64_t units = users.ranges * items.ranges;
        parallel(call.threads, user_tasks + item_tasks, [&](int64_t task, int64_t) {
            norms[task] = task < user_tasks ? pack(users, task * PACK_ROWS, nullptr)
                                            : pack(items, (task - user_tasks) * PACK_ROWS, items_by_rank);
        });
        parallel(call.threads, units, [&](int64_t unit, int64_t thread) {
            if (call.mask.kind != NO_MASK) run_unit<true>(unit, scratch[thread]);
            else run_unit<false>(unit, scratch[thread]);
        });
        double loss = 0, d_global_sum = 0, norm = 0;
        for (int64_t unit = 0; unit < units; ++unit) loss += sse[unit], d_global_sum += d_global[unit];
        for (int64_t task = 0; task < user_tasks + item_tasks; ++task) norm += norms[task];
        *call.loss = loss + call.reg * norm;
        if (!call.gradients) return;
        *static_cast<T *>(call.d_global_bias) = T(2 * d_global_sum);
        parallel(call.threads, user_tasks + item_tasks, [&](int64_t task, int64_t) {
            if (task < user_tasks) finish(users, items.ranges, task * PACK_ROWS);
            else finish(items, users.ranges, (task - user_tasks) * PACK_ROWS);
        });
    }

  private:
    // Rows of factors a multiple of 512 bytes apart would share a few cache sets.
    static int64_t row_length(int64_t vectors) {
        return vectors * LANES + (vectors * VECTOR_BYTES % 512 == 0 ? 64 / int(sizeof(T)) : 0);
    }

    // Cut the matrix into about four units a thread (so that uneven ones even out), as square as they come.
    void cut() {
        const int64_t m = users.given.count, n = items.given.count;
        const double wanted = std::max(1.0, std::min(4.0 * double(call.threads), double(m) * double(n) * double(rank) / (1 << 16)));
        const double across = std::sqrt(wanted * double(m) / double(n));
        cut(users, std::max(1.0, std::min(across, wanted)), S::CELL_USERS);
        cut(items, std::max(1.0, wanted / double(users.ranges)), S::CELL_ITEMS);
    }
    static void cut(Packed &side, double ranges, int64_t multiple) {
        side.padded = round_up(side.given.count, multiple);
        side.range = round_up(ceil_div(side.given.count, int64_t(ranges + 0.5)), multiple);
        side.ranges = ceil_div(side.given.count, side.range);
    }

    void allocate(Arena &arena) {
        for (bool measure : {true, false}) {
            int64_t used = 0;
            auto place = [&](auto *&pointer, int64_t count) {
                if (!measure) pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(arena.data() + used);
                used += round_up(count * int64_t(sizeof *pointer), 64);
            };
            for (Packed *side : {&users, &items}) {
                const int64_t others = call.gradients ? (side == &users ? items : users).ranges : 0;
                place(side->factors, side->padded * ld);
                place(side->bias, side->padded);
                place(side->d_factors, others * side->padded * ld);
                place(side->d_bias, others * side->padded);
            }
            place(items_by_rank, items.padded * rank);
            place(sse, users.ranges * items.ranges);
            place(d_global, users.ranges * items.ranges);
            place(norms, ceil_div(users.padded, PACK_ROWS) + ceil_div(items.padded, PACK_ROWS));
            place(scratch, call.threads);
            if (measure) arena.reserve(used);
        }
    }

    // Copies rows of one side into padded buffers; returns the sum of their squares.
    double pack(Packed &side, int64_t begin, T *by_rank) {
        const Side &from = side.given;
        const T *factors = static_cast<const T *>(from.factors), *bias = static_cast<const T *>(from.bias);
        const T global_bias = by_rank ? T(0) : *static_cast<const T *>(call.global_bias);
        double norm = 0;
        for (int64_t i = begin; i < std::min(begin + PACK_ROWS, side.padded); ++i) {
            T *row = side.factors + i * ld;
            if (i >= from.count) {
                std::fill_n(row, ld, T(0));
                side.bias[i] = 0;
            } else {
                const T *given = factors + i * from.row_stride;
                double sum = 0;
                for (int64_t k = 0; k < rank; ++k) row[k] = given[k * from.column_stride];
                for (int64_t k = 0; k < rank; ++k) sum += double(row[k]) * double(row[k]);
                std::fill_n(row + rank, ld - rank, T(0));
                const T b = bias[i * from.bias_stride];
                norm += sum + double(b) * double(b);
                side.bias[i] = b + global_bias;
            }
            if (by_rank) {
                T *column = by_rank + i / NR * NR * rank + i % NR;
                for (int64_t k = 0; k < rank; ++k) column[k * NR] = row[k];
            }
        }
        return norm;
    }

    template <bool masked> void run_unit(int64_t unit, Scratch &own) {
        const int64_t user_range = unit / items.ranges, item_range = unit % items.ranges;
        const int64_t i_begin = user_range * users.range, i_end = std::min(i_begin + users.range, users.given.count);
        const int64_t j_begin = item_range * items.range, j_end = std::min(j_begin + items.range, items.given.count);
        sse[unit] = d_global[unit] = 0;
        if (call.gradients) {
            clear(users, item_range, i_begin);
            clear(items, user_range, j_begin);
        }
        for (int64_t i = i_begin; i < i_end; i += BLOCK_USERS)
            for (int64_t j = j_begin; j < j_end; j += BLOCK_ITEMS)
                run_tile<masked>(unit, i, std::min<int64_t>(BLOCK_USERS, i_end - i), j,
                                 std::min<int64_t>(BLOCK_ITEMS, j_end - j), own);
    }

    void clear(Packed &side, int64_t other_range, int64_t begin) {
        const int64_t rows = std::min(side.range, side.padded - begin), at = other_range * side.padded + begin;
        std::fill_n(side.d_factors + at * ld, rows * ld, T(0));
        std::fill_n(side.d_bias + at, rows, 0.0);
    }

    template <bool masked>
    void run_tile(int64_t unit, int64_t i0, int64_t rows, int64_t j0, int64_t columns, Scratch &own) {
        constexpr int USER_CELLS = BLOCK_USERS / S::CELL_USERS, ITEM_CELLS = BLOCK_ITEMS / S::CELL_ITEMS;
        bool active[USER_CELLS][ITEM_CELLS] = {};
        const int64_t user_range = unit % items.ranges, item_range = unit / items.ranges;
        double *d_user_bias = users.d_bias + user_range * users.padded + i0;
        double *d_item_bias = items.d_bias + item_range * items.padded + j0;
        std::fill_n(own.column_sums, BLOCK_ITEMS, T(0));
        for (int64_t i = 0; i < rows; i += MR) {
            Sums<T> sums = {};
            bool any = false;
            for (int64_t j = 0; j < columns; j += NR) {
                own.tile.fetch(source, i0 + i, j0 + j, int(std::min<int64_t>(MR, rows - i)),
                               int(std::min<int64_t>(NR, columns - j)));
                prefetch(i + MR < rows ? i0 + i + MR : i0, i + MR < rows ? j0 + j : j0 + j + BLOCK_ITEMS);
                T *E = own.E + i * BLOCK_ITEMS + j;
                if (own.tile.template any_observed<masked>()) {
                    errors<T, masked>(rank, users.factors + (i0 + i) * ld, ld, items_by_rank + (j0 + j) * rank,
                                      users.bias + i0 + i, items.bias + j0 + j, own.tile, E, BLOCK_ITEMS, sums,
                                      own.column_sums + j);
                    any = active[i / S::CELL_USERS][j / S::CELL_ITEMS] = true;
                } else {
                    for (int r = 0; r < MR; ++r) std::fill_n(E + r * BLOCK_ITEMS, NR, T(0));
                }
            }
            if (!any) continue;
            sse[unit] += sum_lanes<T>(sums.squares);
            if (!call.gradients) continue;
            for (int r = 0; r < std::min<int64_t>(MR, rows - i); ++r) {
                const double sum = sum_lanes<T>(sums.rows[r]);
                d_user_bias[i + r] += sum;
                d_global[unit] += sum;
            }
        }
        if (!call.gradients) return;
        for (int64_t j = 0; j < columns; ++j) d_item_bias[j] += double(own.column_sums[j]);
        // The gradient products, over runs of cells that hold an observed rating.
        T *dP = users.d_factors + (user_range * users.padded + i0) * ld;
        T *dQ = items.d_factors + (item_range * items.padded + j0) * ld;
        const T *P = users.factors + i0 * ld, *Q = items.factors + j0 * ld;
        for (int64_t cell = 0, i = 0; i < rows; ++cell, i += S::CELL_USERS)
            for_runs(ITEM_CELLS, S::CELL_ITEMS, columns, [&](int64_t c) { return active[cell][c]; },
                     [&](int64_t j, int64_t depth) {
                         product<T>(std::min<int64_t>(S::CELL_USERS, rows - i), vectors, depth,
                                    own.E + i * BLOCK_ITEMS + j, BLOCK_ITEMS, 1, Q + j * ld, dP + i * ld, ld);
                     });
        for (int64_t cell = 0, j = 0; j < columns; ++cell, j += S::CELL_ITEMS)
            for_runs(USER_CELLS, S::CELL_USERS, rows, [&](int64_t c) { return active[c][cell]; },
                     [&](int64_t i, int64_t depth) {
                         product<T>(std::min<int64_t>(S::CELL_ITEMS, columns - j), vectors, depth,
                                    own.E + i * BLOCK_ITEMS + j, 1, BLOCK_ITEMS, P + i * ld, dQ + j * ld, ld);
                     });
    }

    // visit(begin, length) for every run of active cells, clipped to `end`.
    template <class Active, class Visit>
    static void for_runs(int64_t cells, int64_t size, int64_t end, Active active, Visit visit) {
        for (int64_t cell = 0; cell < cells; ++cell) {
            if (!active(cell)) continue;
            const int64_t begin = cell;
            while (cell < cells && active(cell)) ++cell;
            visit(begin * size, std::min(cell * size, end) - begin * size);
        }
    }

    void prefetch(int64_t i, int64_t j) const {
        const char *rating = source.rating(i, j), *observed = source.observed(i, j);
        for (int r = 0; r < MR; ++r) {
            __builtin_prefetch(rating + r * source.ratings.row_stride * source.rating_bytes);
            __builtin_prefetch(observed + r * source.mask.row_stride * source.mask_bytes);
        }
    }

    // Sums the partial gradients in a fixed order, doubles and regularises.
    void finish(Packed &side, int64_t others, int64_t begin) {
        const T reg = T(call.reg);
        T *d_factors = static_cast<T *>(side.given.d_factors), *d_bias = static_cast<T *>(side.given.d_bias);
        const T *bias = static_cast<const T *>(side.given.bias);
        for (int64_t i = begin; i < std::min(begin + PACK_ROWS, side.given.count); ++i) {
            const T *row = side.factors + i * ld;
            T *to = d_factors + i * rank;
            for (int64_t k = 0; k < rank; ++k) to[k] = reg * row[k];
            double sum = call.reg * double(bias[i * side.given.bias_stride]);
            for (int64_t other = 0; other < others; ++other) {
                const T *from = side.d_factors + (other * side.padded + i) * ld;
                for (int64_t k = 0; k < rank; ++k) to[k] += from[k];
                sum += side.d_bias[other * side.padded + i];
            }
            for (int64_t k = 0; k < rank; ++k) to[k] *= 2;
            d_bias[i] = T(2 * sum);
        }
    }
};

template <class T> void run(const Call &call, Arena &arena) {
    Matrix ratings = call.ratings, mask = call.mask;
    const int64_t m = call.users.count, n = call.items.count;
    // Users and items may change places: the contiguous side should be the items, and the longer one if both are.
    if (ratings.row_stride == 1 && (ratings.column_stride != 1 || n < m)) {
        std::swap(ratings.row_stride, ratings.column_stride);
        std::swap(mask.row_stride, mask.column_stride);
        Step<T>(call, call.items, call.users, ratings, mask).run(arena);
    } else {
        Step<T>(call, call.users, call.items, ratings, mask).run(arena);
    }
}

}  // namespace

// Returns 0, or 1 where memory ran out.
extern "C" int mf_step(const void *packed) {
    static thread_local Arena arena;
    Call call;
    std::memcpy(&call, packed, sizeof call);
    try {
        if (call.double_parameters) run<double>(call, arena);
        else run<float>(call, arena);
    } catch (const std::bad_alloc &) {
        return 1;
    }
    return 0;
}
