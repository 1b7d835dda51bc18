// Vectors of the target's width, in GCC's and Clang's vector extensions, and the shapes of the register tiles.

#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX2__
#include <immintrin.h>
#endif

using std::int64_t;

#define ALWAYS_INLINE inline __attribute__((always_inline))

// ACCUMULATORS: vector registers that hold sums, what is left after the operands of a product took theirs.
#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64, ACCUMULATORS = 24, MR = 12;
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int VECTOR_BYTES = 32, ACCUMULATORS = 12, MR = 6;
#elif defined(__aarch64__)
constexpr int VECTOR_BYTES = 16, ACCUMULATORS = 24, MR = 6;
#else
constexpr int VECTOR_BYTES = 16, ACCUMULATORS = 12, MR = 6;
#endif

template <class T> struct IntegerLike;
template <> struct IntegerLike<float> { using type = std::int32_t; };
template <> struct IntegerLike<double> { using type = int64_t; };

template <class T> struct Simd {
    static constexpr int LANES = VECTOR_BYTES / sizeof(T);
    static constexpr int NV = ACCUMULATORS / MR, NR = NV * LANES;  // a register tile: MR users x NR items

    typedef T Vector __attribute__((vector_size(VECTOR_BYTES)));
    typedef typename IntegerLike<T>::type Lanes __attribute__((vector_size(VECTOR_BYTES)));  // all bits set, or none
    typedef std::uint8_t Bytes __attribute__((vector_size(LANES)));
    typedef std::uint8_t ByteRow __attribute__((vector_size(NR)));
};

template <class V> inline V load(const void *from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

template <class V> inline void store(void *to, V v) { std::memcpy(to, &v, sizeof v); }

template <class T> inline double sum_lanes(typename Simd<T>::Vector v) {
    double sum = 0;
    for (int lane = 0; lane < Simd<T>::LANES; ++lane) sum += double(v[lane]);
    return sum;
}

// A value that stays in its register: else GCC reads it again from memory for every product.
template <class V> inline void keep(V &v) {
#if defined(__x86_64__)
    asm("" : "+x"(v));
#elif defined(__aarch64__)
    asm("" : "+w"(v));
#else
    (void)v;
#endif
}

// Bytes as integers of T's width. GCC makes one scalar move a lane of the generic conversion.
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

// Integers below 2^23 as numbers: they are the low bits of a number whose ulp is 1.
template <class T> inline typename Simd<T>::Vector from_small(typename Simd<T>::Lanes integers) {
    using V = typename Simd<T>::Vector;
    using Lanes = typename Simd<T>::Lanes;
    const V base = V{} + (sizeof(T) == 4 ? T(0x1p23) : T(0x1p52));
    return (V)(integers | (Lanes)base) - base;
}
