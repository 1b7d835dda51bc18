// Micro-kernels of the three matrix products of a block of errors E: the predictions P Q', and the gradient products
// E Q and E' P. Each keeps a tile of its result in the accumulator registers.

#pragma once

#include <algorithm>

#include "simd.h"

namespace mf {

constexpr int64_t KC = 64;  // ranks summed in one go; a longer sum is a sum of such sums, which bounds rounding errors

template <class T> using MicroTile = typename Simd<T>::Vector[MR][Simd<T>::NV];

// Sets every row of a micro-tile to the same NR numbers.
template <class T> ALWAYS_INLINE void fill_tile(const T *row, MicroTile<T> &e) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
        for (int v = 0; v < Simd<T>::NV; ++v) e[i][v] = load<typename Simd<T>::Vector>(row + v * Simd<T>::LANES);
}

template <class T> ALWAYS_INLINE void clear_tile(MicroTile<T> &e) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
        for (int v = 0; v < Simd<T>::NV; ++v) e[i][v] = typename Simd<T>::Vector{};
}

template <class T> ALWAYS_INLINE void add_tile(const T *from, int64_t ld, MicroTile<T> &e) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
        for (int v = 0; v < Simd<T>::NV; ++v)
            e[i][v] += load<typename Simd<T>::Vector>(from + i * ld + v * Simd<T>::LANES);
}

template <class T> ALWAYS_INLINE void store_tile(T *to, int64_t ld, const MicroTile<T> &e) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
        for (int v = 0; v < Simd<T>::NV; ++v) store(to + i * ld + v * Simd<T>::LANES, e[i][v]);
}

// Adds a micro-tile of predictions to registers, e += P Qt for MR users x NR items. P: [MR, rank], leading dimension
// ldp; Qt: a micro-panel [rank, NR]; E: [MR, NR], leading dimension lde, overwritten if the rank is more than KC. Calls
// between(r) for every r < MR, where errors are made in registers each between two products.
template <class T, class Between>
ALWAYS_INLINE void predict_tile(int64_t rank, const T *P, int64_t ldp, const T *Qt, T *E, int64_t lde,
                                MicroTile<T> &e, const Between &between) {
    using V = typename Simd<T>::Vector;
    constexpr int NV = Simd<T>::NV, NR = Simd<T>::NR, LANES = Simd<T>::LANES;
    const T *p[MR];
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) p[i] = P + i * ldp;
    const auto add_product = [&](int64_t k) __attribute__((always_inline)) {
        V q[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) q[v] = load<V>(Qt + v * LANES);
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
            for (int v = 0; v < NV; ++v) e[i][v] += p[i][k] * q[v];
        Qt += NR;
    };
    int64_t k = 0;
    if constexpr (ERRORS_IN_REGISTERS) {
        for (const int64_t end = std::min<int64_t>(rank, MR); k < end; ++k) {
            between(k);
            add_product(k);
        }
    }
    for (int64_t r = k; r < MR; ++r) between(r);
    for (int64_t end = KC; end < rank; end += KC) {
#pragma GCC unroll 4
        for (; k < end; ++k) add_product(k);
        if (end > KC) add_tile<T>(E, lde, e);
        store_tile<T>(E, lde, e);
        clear_tile<T>(e);
    }
#pragma GCC unroll 4
    for (; k < rank; ++k) add_product(k);
    if (rank > KC) add_tile<T>(E, lde, e);
}

// Adds a tile of a gradient product: C[r, :] += sum over d < depth of E[r, d] B[d, :], for ROWS rows and W vectors.
// B and C have leading dimension ld. E is read through its strides, so one routine serves E Q and E' P.
template <class T, int W, int64_t row_stride, int64_t depth_stride>
ALWAYS_INLINE void gradient_tile(int64_t depth, const T *E, const T *B, T *C, int64_t ld) {
    using V = typename Simd<T>::Vector;
    constexpr int ROWS = ACCUMULATORS / W, LANES = Simd<T>::LANES;
    V c[ROWS][W] = {};
    for (int64_t d = 0; d < depth; ++d, E += depth_stride, B += ld) {
        if constexpr (ROWS < W) {  // registers are left for one operand of the outer product: load the shorter one
            V e[ROWS];
#pragma GCC unroll 24
            for (int r = 0; r < ROWS; ++r) e[r] = E[r * row_stride] - V{};
#pragma GCC unroll 4
            for (int w = 0; w < W; ++w) {
                V b = load<V>(B + w * LANES);
                keep_in_register(b);
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

// Adds a gradient product of any number of rows, rounded up to whole tiles, and of vectors.
template <class T, int64_t row_stride, int64_t depth_stride>
void gradient_product(int64_t rows, int64_t vectors, int64_t depth, const T *E, const T *B, T *C, int64_t ld) {
    const int64_t chunks = ceil_div(vectors, 4);
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int64_t width = vectors / (chunks - chunk);
        for (int64_t r = 0; r < rows; r += ACCUMULATORS / width) {
            const T *e = E + r * row_stride;
            T *c = C + r * ld;
            if (width == 4) gradient_tile<T, 4, row_stride, depth_stride>(depth, e, B, c, ld);
            if (width == 3) gradient_tile<T, 3, row_stride, depth_stride>(depth, e, B, c, ld);
            if (width == 2) gradient_tile<T, 2, row_stride, depth_stride>(depth, e, B, c, ld);
            if (width == 1) gradient_tile<T, 1, row_stride, depth_stride>(depth, e, B, c, ld);
        }
        vectors -= width;
        B += width * Simd<T>::LANES;
        C += width * Simd<T>::LANES;
    }
}

// The last few columns of a rank just above a multiple of LANES would cost as much as a whole vector. The two routines
// below compute them with vectors along the items instead.

constexpr int TAIL_COLUMNS = ACCUMULATORS / 6;  // columns computed in one pass over E

// Adds the tail of E Q: C[r, :columns] += sum over d < depth of E[r, d] Bt[:columns, d]. Rows are rounded up to CHAINS.
// Bt: micro-panels [depth / NR, ldc, NR], depth a multiple of NR; E and C have leading dimensions lde and ldc.
template <class T, int64_t lde, int K = TAIL_COLUMNS>
void tail_product(int64_t rows, int64_t columns, int64_t depth, const T *E, const T *Bt, T *C, int64_t ldc) {
    using V = typename Simd<T>::Vector;
    constexpr int NR = Simd<T>::NR, LANES = Simd<T>::LANES;
    for (; columns >= K; columns -= K, Bt += K * NR, C += K)
        for (int64_t r = 0; r < rows; r += CHAINS) {
            V sums[CHAINS][K] = {};
            for (int64_t d = 0; d < depth; d += LANES) {
                const T *b = Bt + d / NR * NR * ldc + d % NR;
                V e[CHAINS];
#pragma GCC unroll 4
                for (int i = 0; i < CHAINS; ++i) e[i] = load<V>(E + (r + i) * lde + d);
#pragma GCC unroll 4
                for (int k = 0; k < K; ++k)
#pragma GCC unroll 4
                    for (int i = 0; i < CHAINS; ++i) sums[i][k] += e[i] * load<V>(b + k * NR);
            }
            for (int i = 0; i < CHAINS; ++i)
                for (int k = 0; k < K; ++k) C[(r + i) * ldc + k] += T(sum_lanes<T>(sums[i][k]));
        }
    if constexpr (K > 1)
        if (columns) tail_product<T, lde, K - 1>(rows, columns, depth, E, Bt, C, ldc);
}

// Adds the tail of E' P: C[r, :columns] += sum over d < depth of E[d, r] A[d, :columns], for NR rows.
template <class T, int64_t lde, int K = TAIL_COLUMNS>
void transposed_tail_product(int64_t columns, int64_t depth, const T *E, const T *A, T *C, int64_t ld) {
    using V = typename Simd<T>::Vector;
    constexpr int NV = Simd<T>::NV, NR = Simd<T>::NR, LANES = Simd<T>::LANES;
    for (; columns >= K; columns -= K, A += K, C += K) {
        V sums[K][NV] = {};
#pragma GCC unroll 2
        for (int64_t d = 0; d < depth; ++d)
#pragma GCC unroll 4
            for (int v = 0; v < NV; ++v) {
                const V e = load<V>(E + d * lde + v * LANES);
#pragma GCC unroll 4
                for (int k = 0; k < K; ++k) sums[k][v] += A[d * ld + k] * e;
            }
        for (int k = 0; k < K; ++k) {
            T column[NR];
            for (int v = 0; v < NV; ++v) store(column + v * LANES, sums[k][v]);
            for (int r = 0; r < NR; ++r) C[r * ld + k] += column[r];
        }
    }
    if constexpr (K > 1)
        if (columns) transposed_tail_product<T, lde, K - 1>(columns, depth, E, A, C, ld);
}

}  // namespace mf
