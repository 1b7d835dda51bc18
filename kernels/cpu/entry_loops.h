// The inner loops over the entries of one user: predictions, errors and gradients of a chunk of them.

#pragma once

#include <algorithm>

#include "simd.h"

namespace mf {

constexpr int CHUNK = 32;    // entries of one user that are decoded and worked through at a time
constexpr int RANK_BLOCK = 4;  // vectors of a row of factors that are kept in registers

template <class T> struct Chunk {
    int64_t count;                        // entries
    alignas(64) std::int32_t items[CHUNK];  // those of whole vectors: the last one is repeated
    alignas(64) T errors[CHUNK];            // first the ratings; zero after the last entry
};

template <class T> struct Rows {  // of packed factors of items, and of their gradients
    const T *factors, *bias;  // [items, ld], [items]
    T *d_factors;             // [items, ld]
    double *d_bias;           // [items]
    int64_t ld, vectors;      // vectors: of a row
};

// Adds up LANES vectors: lane l of the result is the sum of the lanes of v[l].
template <class T, int BY = Simd<T>::LANES / 2>
ALWAYS_INLINE typename Simd<T>::Vector sum_each(typename Simd<T>::Vector *v) {
    if constexpr (BY == 0) return v[0];
    else {
#pragma GCC unroll 16
        for (int i = 0; i < BY; ++i) {
            swap_blocks<T, BY>(v[i], v[i + BY]);
            v[i] += v[i + BY];
        }
        return sum_each<T, BY / 2>(v);
    }
}

// Calls visit(vectors, first) for blocks of 1 to RANK_BLOCK vectors of a row; `vectors` is a compile-time constant.
template <class T, class Visit> ALWAYS_INLINE void for_rank_blocks(int64_t vectors, Visit visit) {
    for (int64_t blocks = ceil_div(vectors, RANK_BLOCK), first = 0, width; blocks; --blocks, first += width) {
        width = (vectors - first) / blocks;
        const int64_t at = first * Simd<T>::LANES;
        if (width == 4) visit(std::integral_constant<int, 4>(), at);
        else if (width == 3) visit(std::integral_constant<int, 3>(), at);
        else if (width == 2) visit(std::integral_constant<int, 2>(), at);
        else visit(std::integral_constant<int, 1>(), at);
    }
}

// Sets dots[c], or adds to it, the product of p and the factors of the chunk's item c over W vectors from column k on.
template <class T, int W>
ALWAYS_INLINE void dot_products(const Chunk<T> &chunk, const Rows<T> &rows, const T *p, int64_t k, T *dots) {
    using V = typename Simd<T>::Vector;
    constexpr int LANES = Simd<T>::LANES;
    V user[W];
#pragma GCC unroll 4
    for (int w = 0; w < W; ++w) user[w] = load<V>(p + k + w * LANES);
    const T *factors = rows.factors + k;
    for (int64_t c = 0; c < chunk.count; c += LANES) {
        V sums[LANES];
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) {
            const T *q = factors + chunk.items[c + i] * rows.ld;
            sums[i] = user[0] * load<V>(q);
#pragma GCC unroll 4
            for (int w = 1; w < W; ++w) sums[i] += user[w] * load<V>(q + w * LANES);
        }
        const V sum = sum_each<T>(sums);
        store(dots + c, k ? sum + load<V>(dots + c) : sum);
    }
}

// Adds the products of the chunk's errors with the factors of its items to d_p, and with p to the gradients of these,
// over W vectors from column k on.
template <class T, int W>
ALWAYS_INLINE void add_gradients(const Chunk<T> &chunk, const Rows<T> &rows, const T *p, int64_t k, T *d_p) {
    using V = typename Simd<T>::Vector;
    constexpr int LANES = Simd<T>::LANES;
    V user[W], d_user[W] = {};
#pragma GCC unroll 4
    for (int w = 0; w < W; ++w) user[w] = load<V>(p + k + w * LANES);
    for (int64_t c = 0; c < chunk.count; ++c) {
        const int64_t row = chunk.items[c] * rows.ld + k;
        const T *q = rows.factors + row;
        T *d_q = rows.d_factors + row;
        const V error = V{} + chunk.errors[c];
#pragma GCC unroll 4
        for (int w = 0; w < W; ++w) {
            d_user[w] += error * load<V>(q + w * LANES);
            store(d_q + w * LANES, load<V>(d_q + w * LANES) + error * user[w]);
        }
    }
#pragma GCC unroll 4
    for (int w = 0; w < W; ++w) store(d_p + k + w * LANES, load<V>(d_p + k + w * LANES) + d_user[w]);
}

struct ErrorSums {
    double errors = 0, squares = 0;
};

// Turns the chunk's ratings into errors and adds up these and their squares. `bias`: of the user.
template <class T>
ALWAYS_INLINE void chunk_errors(Chunk<T> &chunk, const Rows<T> &rows, const T *p, T bias, ErrorSums &sums) {
    using V = typename Simd<T>::Vector;
    constexpr int LANES = Simd<T>::LANES;
    alignas(64) T dots[CHUNK], item_bias[CHUNK];
    const int64_t whole = round_up(chunk.count, LANES);
    std::fill(chunk.items + chunk.count, chunk.items + whole, chunk.items[chunk.count - 1]);
    for_rank_blocks<T>(rows.vectors, [&](auto width, int64_t k) {
        dot_products<T, width>(chunk, rows, p, k, dots);
    });
    for (int64_t c = 0; c < whole; ++c) item_bias[c] = rows.bias[chunk.items[c]];
    for (int64_t c = 0; c < whole; c += LANES)
        store(chunk.errors + c, load<V>(dots + c) + bias + load<V>(item_bias + c) - load<V>(chunk.errors + c));
    std::fill(chunk.errors + chunk.count, chunk.errors + whole, T(0));
    V errors = {}, squares = {};
    for (int64_t c = 0; c < whole; c += LANES) {
        const V error = load<V>(chunk.errors + c);
        errors += error;
        squares += error * error;
    }
    sums.errors += sum_lanes<T>(errors);
    sums.squares += sum_lanes<T>(squares);
}

// Adds the chunk's gradients: to d_p, and to the rows of its items.
template <class T>
ALWAYS_INLINE void chunk_gradients(const Chunk<T> &chunk, const Rows<T> &rows, const T *p, T *d_p) {
    for_rank_blocks<T>(rows.vectors, [&](auto width, int64_t k) { add_gradients<T, width>(chunk, rows, p, k, d_p); });
    for (int64_t c = 0; c < chunk.count; ++c) rows.d_bias[chunk.items[c]] += double(chunk.errors[c]);
}

}  // namespace mf
