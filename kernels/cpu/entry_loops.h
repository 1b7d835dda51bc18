// The inner loops over the entries of one user: predictions, errors and gradients of a chunk of them.

#pragma once

#include <algorithm>

#include "simd.h"

namespace mf {

constexpr int CHUNK = 32;    // entries of one user that are decoded and worked through at a time
constexpr int RANK_BLOCK = 4;  // vectors of a row of factors that are kept in registers

template <class T> struct Chunk {
    int64_t count = 0;                           // entries
    alignas(64) std::int32_t items[CHUNK] = {};  // after the last entry, the first item
    alignas(64) int64_t rows[CHUNK] = {};        // where the rows of the items begin, in elements
    alignas(64) T errors[CHUNK];                 // first the ratings; after the last entry, zeros
};

template <class T> struct Rows {  // of factors of items, and of their gradients
    const T *factors, *bias;  // [items, ld], [items]
    T *d_factors;             // [items, ld]
    double *d_bias;           // [items]
    int64_t vectors;          // of a row
};

// Calls visit(vectors, first, at) for blocks of 1 to RANK_BLOCK vectors of a row, which begin at element `at`. `vectors`
// and `first`, whether it is the first block, are compile-time constants.
template <class T, class Visit> ALWAYS_INLINE void for_rank_blocks(int64_t vectors, Visit visit) {
    int64_t blocks = ceil_div(vectors, RANK_BLOCK), at = 0;
    const auto visit_next = [&](auto first) {
        const int64_t rest = vectors - at / Simd<T>::LANES, width = blocks == 1 ? rest : rest / blocks;
        --blocks;
        if (width == 4) visit(std::integral_constant<int, 4>(), first, at);
        else if (width == 3) visit(std::integral_constant<int, 3>(), first, at);
        else if (width == 2) visit(std::integral_constant<int, 2>(), first, at);
        else visit(std::integral_constant<int, 1>(), first, at);
        at += width * Simd<T>::LANES;
    };
    visit_next(std::true_type());
    while (blocks) visit_next(std::false_type());
}

// Prefetches W vectors from `row` on. Always inlined, because GCC drops calls of a function that only prefetches.
template <class T, int W, int write> ALWAYS_INLINE void prefetch_row(const T *row) {
    for (int byte = 0; byte < W * VECTOR_BYTES; byte += 64)
        __builtin_prefetch(reinterpret_cast<const char *>(row) + byte, write, 3);
}

// Returns the products of `user`, W vectors of a user's factors from column k on, with those of COUNT items, the chunk's
// from entry c on; the first block also adds the items' biases. Meanwhile the rows that add_gradients will add to are
// prefetched.
template <class T, int COUNT, int W, bool FIRST, bool GRADIENTS>
ALWAYS_INLINE typename Simd<T>::Vector dot_products(const Chunk<T> &chunk, int64_t c, const Rows<T> &rows,
                                                    const typename Simd<T>::Vector *user, int64_t k) {
    using V = typename Simd<T>::Vector;
    V sums[Simd<T>::LANES] = {};
#pragma GCC unroll 16
    for (int i = 0; i < COUNT; ++i) {
        const int64_t row = chunk.rows[c + i];
        const T *q = rows.factors + k + row;
        if constexpr (GRADIENTS) prefetch_row<T, W, 1>(rows.d_factors + k + row);
        if constexpr (FIRST) sums[i] = V{rows.bias[chunk.items[c + i]]} + user[0] * load<V>(q);
        else sums[i] = user[0] * load<V>(q);
#pragma GCC unroll 4
        for (int w = 1; w < W; ++w) sums[i] += user[w] * load<V>(q + w * Simd<T>::LANES);
    }
    return sum_each<T>(sums);
}

// Sets dots[c], or adds to it, the product of p and the factors of the chunk's item c over W vectors from column k on.
template <class T, int W, bool FIRST, bool GRADIENTS>
ALWAYS_INLINE void chunk_products(const Chunk<T> &chunk, const Rows<T> &rows, const T *p, int64_t k, T *dots) {
    using V = typename Simd<T>::Vector;
    constexpr int LANES = Simd<T>::LANES;
    V user[W];
#pragma GCC unroll 4
    for (int w = 0; w < W; ++w) user[w] = load<V>(p + k + w * LANES);
    const int64_t count = chunk.count;
    const Rows<T> of = rows;  // local, since stores may alias all else
    for (int64_t c = 0; c < count; c += LANES) {
        const V sum = count - c > LANES / 2 ? dot_products<T, LANES, W, FIRST, GRADIENTS>(chunk, c, of, user, k)
                                            : dot_products<T, LANES / 2, W, FIRST, GRADIENTS>(chunk, c, of, user, k);
        store(dots + c, FIRST ? sum : sum + load<V>(dots + c));
    }
}

// Adds the products of the chunk's errors with the factors of its items to d_p, and with p to the gradients of these,
// over W vectors from column k on. Meanwhile the factors of the next chunk's items are prefetched.
template <class T, int W, bool FIRST>
ALWAYS_INLINE void add_gradients(const Chunk<T> &chunk, const Chunk<T> &next, const Rows<T> &rows, const T *p,
                                 int64_t k, T *d_p) {
    using V = typename Simd<T>::Vector;
    constexpr int LANES = Simd<T>::LANES;
    V user[W], d_user[W] = {};
#pragma GCC unroll 4
    for (int w = 0; w < W; ++w) user[w] = load<V>(p + k + w * LANES);
    const int64_t count = chunk.count;  // local, since stores may alias all else
    const T *const factors = rows.factors + k;
    T *const d_factors = rows.d_factors + k;
    double *const d_bias = rows.d_bias;
    for (int64_t c = 0; c < count; ++c) {
        const int64_t row = chunk.rows[c];
        const T *q = factors + row;
        T *d_q = d_factors + row;
        prefetch_row<T, W, 0>(factors + next.rows[c]);
        const V error = chunk.errors[c] - V{};  // + V{} would take an addition, which turns -0 into 0
#pragma GCC unroll 4
        for (int w = 0; w < W; ++w) {
            d_user[w] += error * load<V>(q + w * LANES);
            store(d_q + w * LANES, load<V>(d_q + w * LANES) + error * user[w]);
        }
        if constexpr (FIRST) d_bias[chunk.items[c]] += double(chunk.errors[c]);
    }
#pragma GCC unroll 4
    for (int w = 0; w < W; ++w) store(d_p + k + w * LANES, load<V>(d_p + k + w * LANES) + d_user[w]);
}

struct ErrorSums {  // computed in float64
    typename Simd<double>::Vector errors = {}, squares = {};
};

// Turns the chunk's ratings into errors and adds up these and their squares. `bias`: of the user.
template <bool GRADIENTS, class T>
ALWAYS_INLINE void chunk_errors(Chunk<T> &chunk, const Rows<T> &rows, const T *p, T bias, ErrorSums &sums) {
    using V = typename Simd<T>::Vector;
    constexpr int LANES = Simd<T>::LANES;
    using Lanes = typename Simd<T>::Lanes;
    alignas(64) T dots[CHUNK];
    for_rank_blocks<T>(rows.vectors, [&](auto width, auto first, int64_t k) {
        chunk_products<T, width, first, GRADIENTS>(chunk, rows, p, k, dots);
    });
    Lanes lane = {};
    for (int i = 0; i < LANES; ++i) lane[i] = i;
    V errors = {}, squares = {};
    const int64_t count = chunk.count;
    for (int64_t c = 0; c < count; c += LANES) {
        const V difference = load<V>(dots + c) + bias - load<V>(chunk.errors + c);
        const V error = (V)((Lanes)difference & (lane < Lanes{} + typename IntegerLike<T>::type(count - c)));
        store(chunk.errors + c, error);
        errors += error;
        squares += error * error;
    }
    sums.errors += fold<T>(errors);
    sums.squares += fold<T>(squares);
}

// Adds the chunk's gradients: to d_p, and to the rows of its items.
template <class T>
ALWAYS_INLINE void chunk_gradients(const Chunk<T> &chunk, const Chunk<T> &next, const Rows<T> &rows, const T *p,
                                   T *d_p) {
    for_rank_blocks<T>(rows.vectors, [&](auto width, auto first, int64_t k) {
        add_gradients<T, width, first>(chunk, next, rows, p, k, d_p);
    });
}

}  // namespace mf
