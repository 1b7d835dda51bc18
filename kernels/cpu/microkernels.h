// The three matrix products of a block of errors, by register tiles: predictions, and the two gradient products.

#pragma once

#include <algorithm>

#include "simd.h"

constexpr int64_t CHAIN = 64;  // products of a prediction that are added up in one chain of roundings

// E = P Qt for MR users x NR items. P: [MR, rank], rows ldp apart; Qt: [rank, NR]; E: [MR, NR], rows lde apart.
template <class T>
ALWAYS_INLINE void predict(int64_t rank, const T *P, int64_t ldp, const T *Qt, T *E, int64_t lde) {
    using V = typename Simd<T>::Vector;
    constexpr int NV = Simd<T>::NV, NR = Simd<T>::NR, LANES = Simd<T>::LANES;
    const T *p[MR];
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) p[i] = P + i * ldp;
    for (int64_t begin = 0; begin < rank; begin += CHAIN) {  // a long sum loses less in pieces
        V e[MR][NV];
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
            for (int v = 0; v < NV; ++v) e[i][v] = p[i][begin] * load<V>(Qt + v * LANES);
        const int64_t end = std::min(begin + CHAIN, rank);
        Qt += NR;
#pragma GCC unroll 4
        for (int64_t k = begin + 1; k < end; ++k, Qt += NR) {
            V q[NV];
#pragma GCC unroll 4
            for (int v = 0; v < NV; ++v) q[v] = load<V>(Qt + v * LANES);
#pragma GCC unroll 16
            for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
                for (int v = 0; v < NV; ++v) e[i][v] += p[i][k] * q[v];
        }
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
            for (int v = 0; v < NV; ++v) {
                T *to = E + i * lde + v * LANES;
                store(to, begin ? e[i][v] + load<V>(to) : e[i][v]);
            }
    }
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

// The same for a few columns, which at a rank just above whole vectors would cost as much as a vector of them. Here the
// vectors lie along the items.

constexpr int TOGETHER = ACCUMULATORS / 6;  // columns for which E is read once

// C[r, :columns] += sum over d < depth of E[r, d] Bt[:columns, d], for the rows up to the next CHAINS. depth: whole
// register tiles, as in Bt, [depth / NR, ldc, NR]; rows of E lie lde apart, those of C ldc.
template <class T, int64_t lde, int K = TOGETHER>
void narrow_rows(int64_t rows, int64_t columns, int64_t depth, const T *E, const T *Bt, T *C, int64_t ldc) {
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
        if (columns) narrow_rows<T, lde, K - 1>(rows, columns, depth, E, Bt, C, ldc);
}

// C[r, :columns] += sum over d < depth of E[d, r] A[d, :columns], for the rows of one register tile.
template <class T, int64_t lde, int K = TOGETHER>
void narrow_columns(int64_t columns, int64_t depth, const T *E, const T *A, T *C, int64_t ld) {
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
        if (columns) narrow_columns<T, lde, K - 1>(columns, depth, E, A, C, ld);
}
