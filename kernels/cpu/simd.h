// Vectors of the target's width, by the vector extensions of GCC and Clang, and the shape of the micro-tile.

#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "integers.h"

namespace mf {

#define ALWAYS_INLINE inline __attribute__((always_inline))

// ACCUMULATORS: vector registers that hold sums; the operands of a product take the others.
// MR: users (rows) of a micro-tile.
#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64, ACCUMULATORS = 24, MR = 12;
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int VECTOR_BYTES = 32, ACCUMULATORS = 12, MR = 6;
#elif defined(__aarch64__)
constexpr int VECTOR_BYTES = 16, ACCUMULATORS = 24, MR = 6;
#else
constexpr int VECTOR_BYTES = 16, ACCUMULATORS = 12, MR = 6;
#endif

// Whether registers are left to turn a micro-tile of predictions into errors before it is stored.
constexpr bool ERRORS_IN_REGISTERS = VECTOR_BYTES == 64;

constexpr int CHAINS = 4;  // independent partial sums of a long sum, to hide the latency of addition

template <class T> struct IntegerLike;
template <> struct IntegerLike<float> { using type = std::int32_t; };
template <> struct IntegerLike<double> { using type = int64_t; };

template <class T> struct Simd {
    static constexpr int LANES = VECTOR_BYTES / sizeof(T);
    static constexpr int NV = ACCUMULATORS / MR, NR = NV * LANES;  // a micro-tile: MR users x NR items, NV vectors wide

    typedef T Vector __attribute__((vector_size(VECTOR_BYTES)));
    typedef typename IntegerLike<T>::type Lanes __attribute__((vector_size(VECTOR_BYTES)));  // masks: a lane is -1 or 0
    typedef std::uint8_t Bytes __attribute__((vector_size(LANES)));
    typedef std::uint8_t ByteRow __attribute__((vector_size(NR)));
    typedef T Half __attribute__((vector_size(VECTOR_BYTES / 2)));
    typedef double HalfAsDoubles __attribute__((vector_size(LANES / 2 * sizeof(double))));
};

template <class V> inline V load(const void *from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

template <class V> inline void store(void *to, V v) { std::memcpy(to, &v, sizeof v); }

// Converts a vector to float64 and adds its two halves. A float64 vector is returned unchanged.
template <class T> inline typename Simd<double>::Vector fold(typename Simd<T>::Vector v) {
    using Doubles = typename Simd<double>::Vector;
    if constexpr (sizeof(T) == 8) return (Doubles)v;
    else {
#if defined(__AVX512F__)  // GCC converts __builtin_convertvector lane by lane
        return (Doubles)(_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)v)) +
                         _mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd((__m512d)v, 1))));
#elif defined(__AVX2__) && defined(__FMA__)  // GCC converts __builtin_convertvector by quarters
        return (Doubles)(_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)v)) +
                         _mm256_cvtps_pd(_mm256_extractf128_ps((__m256)v, 1)));
#else
        typename Simd<T>::Half halves[2];
        std::memcpy(halves, &v, sizeof v);
        return __builtin_convertvector(halves[0], Doubles) + __builtin_convertvector(halves[1], Doubles);
#endif
    }
}

// Returns the sum of a vector's lanes, computed in float64.
template <class T> inline double sum_lanes(typename Simd<T>::Vector v) {
    const auto sums = fold<T>(v);
#if defined(__AVX512F__)
    return _mm512_reduce_add_pd((__m512d)sums);
#elif defined(__AVX2__) && defined(__FMA__)
    const __m128d pair = _mm256_castpd256_pd128((__m256d)sums) + _mm256_extractf128_pd((__m256d)sums, 1);
    return pair[0] + pair[1];
#else
    double sum = 0;
    for (int lane = 0; lane < Simd<double>::LANES; ++lane) sum += sums[lane];
    return sum;
#endif
}

template <class T> inline typename Simd<T>::Vector join(typename Simd<T>::Half low, typename Simd<T>::Half high) {
#if defined(__AVX512F__)
    return (typename Simd<T>::Vector)_mm512_insertf64x4(_mm512_castpd256_pd512((__m256d)low), (__m256d)high, 1);
#elif defined(__AVX2__) && defined(__FMA__)
    if constexpr (sizeof(T) == 4) return (typename Simd<T>::Vector)_mm256_set_m128((__m128)high, (__m128)low);
#endif
    const typename Simd<T>::Half halves[2] = {low, high};
    return load<typename Simd<T>::Vector>(halves);
}

// Loads one vector's worth of numbers of type S, either T or float64, and converts them to T.
template <class T, class S> inline typename Simd<T>::Vector load_as(const S *from) {
    using Half = typename Simd<T>::Half;
    using Doubles = typename Simd<T>::HalfAsDoubles;
    if constexpr (sizeof(S) == sizeof(T)) return load<typename Simd<T>::Vector>(from);
    else return join<T>(__builtin_convertvector(load<Doubles>(from), Half),
                        __builtin_convertvector(load<Doubles>(from + Simd<T>::LANES / 2), Half));
}

// Loads one float64 vector's worth of numbers of type T and converts them to float64.
template <class T> inline typename Simd<double>::Vector load_doubles(const T *from) {
    typedef typename Simd<double>::Vector Doubles;
    if constexpr (sizeof(T) == 8) return load<Doubles>(from);
    else return __builtin_convertvector(load<typename Simd<T>::Half>(from), Doubles);
}

// Returns whether any bit of a vector is set.
template <class Bits> inline bool any_bit(Bits bits) {
#if defined(__AVX2__)
    if constexpr (sizeof bits == 32) return !_mm256_testz_si256((__m256i)bits, (__m256i)bits);
    if constexpr (sizeof bits == 16) return !_mm_testz_si128((__m128i)bits, (__m128i)bits);
#endif
    std::uint64_t words[(sizeof bits + 7) / 8] = {}, all = 0;
    std::memcpy(words, &bits, sizeof bits);
    for (auto word : words) all |= word;
    return all != 0;
}

// Pins a value to a register; otherwise GCC reloads it from memory for every product.
template <class V> inline void keep_in_register(V &v) {
#if defined(__x86_64__)
    asm("" : "+x"(v));
#elif defined(__aarch64__)
    asm("" : "+w"(v));
#else
    (void)v;
#endif
}

// Loads bytes and zero-extends them to T's width. GCC turns the generic conversion into one scalar move per lane.
template <class T> inline typename Simd<T>::Lanes widen(const std::uint8_t *bytes) {
    using Lanes = typename Simd<T>::Lanes;
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return (Lanes)_mm512_cvtepu8_epi32(load<__m128i>(bytes));
    else return (Lanes)_mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)bytes));
#elif defined(__AVX2__) && defined(__FMA__)
    if constexpr (sizeof(T) == 4) return (Lanes)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)bytes));
    else return (Lanes)_mm256_cvtepu8_epi64(_mm_cvtsi32_si128(load<std::int32_t>(bytes)));
#else
    return __builtin_convertvector(load<typename Simd<T>::Bytes>(bytes), Lanes);
#endif
}

// Converts integers below 2^23 to T: OR-ed into 2^23 (2^52 in float64), whose ulp is 1, they are its low bits.
template <class T> inline typename Simd<T>::Vector small_to_float(typename Simd<T>::Lanes integers) {
    using V = typename Simd<T>::Vector;
    using Lanes = typename Simd<T>::Lanes;
    const V base = V{} + (sizeof(T) == 4 ? T(0x1p23) : T(0x1p52));
    return (V)(integers | (Lanes)base) - base;
}

// In every group of 2 BY lanes, swaps the upper BY lanes of `low` with the lower BY lanes of `high`.
template <class T, int BY>
ALWAYS_INLINE void swap_blocks(typename Simd<T>::Vector &low, typename Simd<T>::Vector &high) {
    using V = typename Simd<T>::Vector;
#if defined(__clang__)
    const V old[2] = {low, high};
    for (int lane = 0; lane < Simd<T>::LANES; ++lane) {
        low[lane] = lane & BY ? old[1][lane - BY] : old[0][lane];
        high[lane] = lane & BY ? old[1][lane] : old[0][lane + BY];
    }
#else  // GCC would move the lanes of the loop above one by one
    typename Simd<T>::Lanes lower = {}, upper = {};
    for (int lane = 0; lane < Simd<T>::LANES; ++lane) {
        lower[lane] = lane & BY ? Simd<T>::LANES + lane - BY : lane;
        upper[lane] = lane & BY ? Simd<T>::LANES + lane : lane + BY;
    }
    const V both[2] = {__builtin_shuffle(low, high, lower), __builtin_shuffle(low, high, upper)};
    low = both[0];
    high = both[1];
#endif
}

// Adds neighbouring blocks of BLOCK lanes: in every group of GROUP lanes first those of a, then those of b.
template <class T, int BLOCK, int GROUP>
ALWAYS_INLINE typename Simd<T>::Vector add_neighbours(typename Simd<T>::Vector a, typename Simd<T>::Vector b) {
    constexpr int LANES = Simd<T>::LANES;
    typename Simd<T>::Lanes even = {}, odd = {};  // numbers of lanes of a, then of b
    for (int lane = 0; lane < LANES; ++lane) {
        const int within = lane % GROUP, at = within % (GROUP / 2);
        even[lane] = lane - within + at / BLOCK * 2 * BLOCK + at % BLOCK + (within < GROUP / 2 ? 0 : LANES);
        odd[lane] = even[lane] + BLOCK;
    }
#if defined(__clang__)
    const typename Simd<T>::Vector both[2] = {a, b};
    typename Simd<T>::Vector sums = {};
    for (int lane = 0; lane < LANES; ++lane)
        sums[lane] = both[even[lane] / LANES][even[lane] % LANES] + both[odd[lane] / LANES][odd[lane] % LANES];
    return sums;
#else
    return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, odd);
#endif
}

// Adds up the lanes of each of LANES vectors: lane l of the result is the sum of those of v[l]. Shuffles stay within 128
// bits for as long as they can: those take one instruction, and on some processors half the time.
template <class T, int COUNT = Simd<T>::LANES>
ALWAYS_INLINE typename Simd<T>::Vector sum_each(typename Simd<T>::Vector *v) {
    constexpr int LANES = Simd<T>::LANES, QUARTER = 16 / sizeof(T);
    if constexpr (COUNT == 1) return v[0];
    else {
        constexpr bool across = LANES / COUNT >= QUARTER;
#pragma GCC unroll 8
        for (int i = 0; i < COUNT / 2; ++i)
            v[i] = add_neighbours<T, across ? QUARTER : 1, across ? LANES : QUARTER>(v[2 * i], v[2 * i + 1]);
        return sum_each<T, COUNT / 2>(v);
    }
}

// Transposes a square of LANES vectors: swaps off-diagonal blocks of half the size, then of a quarter, and so on.
template <class T, int BY = Simd<T>::LANES / 2> ALWAYS_INLINE void transpose_square(typename Simd<T>::Vector *rows) {
#pragma GCC unroll 16
    for (int i = 0; i < Simd<T>::LANES; ++i)
        if (!(i & BY)) swap_blocks<T, BY>(rows[i], rows[i + BY]);
    if constexpr (BY > 1) transpose_square<T, BY / 2>(rows);
}

// Packs ROWS rows into a micro-panel: panel[k, r] = rows[r, k]. `ld` is the distance between rows; rows and panel are
// padded to whole vectors along k.
template <int ROWS, class T> inline void pack_panel(int64_t columns, const T *rows, int64_t ld, T *panel) {
    using V = typename Simd<T>::Vector;
    constexpr int LANES = Simd<T>::LANES;
    for (int64_t k = 0; k < columns; k += LANES)
        for (int r = 0; r < ROWS; r += LANES) {
            V square[LANES];
#pragma GCC unroll 16
            for (int i = 0; i < LANES; ++i) square[i] = load<V>(rows + (r + i) * ld + k);
            transpose_square<T>(square);
#pragma GCC unroll 16
            for (int i = 0; i < LANES; ++i) store(panel + (k + i) * ROWS + r, square[i]);
        }
}

}  // namespace mf
