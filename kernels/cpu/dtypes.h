// Element types of ratings and masks, and their decoding into the few types that the inner loops read.

#pragma once

#include <algorithm>
#include <type_traits>

#include "simd.h"

namespace mf {

struct Matrix {  // [users, items]
    const void *data;
    int64_t row_stride, column_stride;  // in elements; of a BITS mask, the row stride is in words
    int64_t kind;                       // a RatingKind or a MaskKind
};

// Types of ratings, numbered as in launch.py. CODES are uint8 indices of rating levels, MISSING_CODE where missing.
enum RatingKind { FLOAT64, FLOAT32, BFLOAT16, FLOAT16, UINT8, INT8, CODES };

constexpr std::uint8_t MISSING_CODE = 255;

// Types of masks, numbered as in launch.py: NO_MASK; BITS, one bit per element in 32-bit words along the items; or the
// size of an element in bytes, plus SIGNED_ZERO for a floating-point mask, whose -0.0 means unobserved.
enum MaskKind { NO_MASK = 0, SIGNED_ZERO = 16, BITS = 32 };

struct BFloat16Bits { std::uint16_t bits; };
struct Float16Bits { std::uint16_t bits; };

inline float as_float(std::uint32_t bits) { return __builtin_bit_cast(float, bits); }

template <class T, class S> inline T convert(S value) { return T(value); }
template <class T> inline T convert(BFloat16Bits value) { return T(as_float(std::uint32_t(value.bits) << 16)); }
template <class T> inline T convert(Float16Bits value) {
    const std::uint32_t sign = std::uint32_t(value.bits & 0x8000) << 16, magnitude = value.bits & 0x7fff;
    const float finite = as_float(magnitude << 13) * 0x1p112f;  // rebiases the exponent; exact for subnormals too
    const std::uint32_t special = (magnitude << 13) | 0x7f800000;  // infinity and NaN
    return T(as_float((magnitude < 0x7c00 ? __builtin_bit_cast(std::uint32_t, finite) : special) | sign));
}

// Sets to[c] = element(from[c]) for c < N, with intrinsics where compilers do not vectorise the conversion.
template <int N, class To, class S, class Element> inline void decode_group(const S *from, To *to, Element element) {
    if constexpr (std::is_same_v<S, std::uint8_t> && std::is_floating_point_v<To>) {
        for (int c = 0; c < N; c += Simd<To>::LANES) store(to + c, small_to_float<To>(widen<To>(from + c)));
        return;
    }
#if defined(__F16C__)
    if constexpr (std::is_same_v<S, Float16Bits> && N % 8 == 0) {
        float decoded[N];
        for (int c = 0; c < N; c += 8) store(decoded + c, _mm256_cvtph_ps(load<__m128i>(from + c)));
        for (int c = 0; c < N; ++c) to[c] = To(decoded[c]);
        return;
    }
#endif
    To decoded[N];  // a local array: stores of bytes may alias anything, which would prevent vectorisation
    for (int c = 0; c < N; ++c) decoded[c] = element(from[c]);
    std::memcpy(to, decoded, sizeof decoded);
}

// Returns the address of an element. Prefetching passes addresses outside the matrix, where pointer arithmetic would be
// undefined, so this computes with integers.
template <class S> inline const S *address(const Matrix &matrix, int64_t i, int64_t j) {
    const int64_t offset = (i * matrix.row_stride + j * matrix.column_stride) * int64_t(sizeof(S));
    return reinterpret_cast<const S *>(reinterpret_cast<std::intptr_t>(matrix.data) + offset);
}

struct Region {  // of a matrix, from (i, j) on
    int64_t i, j, rows, columns;
};

constexpr int GROUP = 16;  // elements decoded per call of decode_group

// Sets to[r, c] = element(matrix[i + r, j + c]); rows of `to` are `pitch` elements apart.
template <class S, class To, class Element>
inline void decode(const Matrix &matrix, const Region &at, To *to, int64_t pitch, Element element) {
    const int64_t stride = matrix.column_stride, grouped = stride == 1 ? at.columns / GROUP * GROUP : 0;
    for (int64_t r = 0; r < at.rows; ++r, to += pitch) {
        const S *row = address<S>(matrix, at.i + r, at.j);
        for (int64_t c = 0; c < grouped; c += GROUP) decode_group<GROUP>(row + c, to + c, element);
        if (stride == 1) for (int64_t c = grouped; c < at.columns; ++c) to[c] = element(row[c]);
        else for (int64_t c = 0; c < at.columns; ++c) to[c] = element(row[c * stride]);
    }
}

template <class To, class S>
void decode_ratings(const Matrix &ratings, const Region &at, void *to, int64_t pitch) {
    decode<S>(ratings, at, static_cast<To *>(to), pitch, [](S value) { return convert<To>(value); });
}

// Copies words without decoding: codes, or mask elements of a type that could also be read in place.
template <class Word> void copy_words(const Matrix &words, const Region &at, void *to, int64_t pitch) {
    decode<Word>(words, at, static_cast<Word *>(to), pitch, [](Word word) { return word; });
}

// Decodes mask elements to bytes, 1 where observed.
template <class Word> void decode_mask(const Matrix &mask, const Region &at, void *to, int64_t pitch) {
    const Word all = Word(~Word(0)), significant = mask.kind & SIGNED_ZERO ? Word(all >> 1) : all;
    decode<Word>(mask, at, static_cast<std::uint8_t *>(to), pitch,
                 [significant](Word word) -> std::uint8_t { return (word & significant) != 0; });
}

// Decodes mask bits to bytes, nonzero where observed, STEP columns at a time. at.j is a multiple of STEP and STEP
// divides 32, so that these columns lie in one word.
template <int STEP> void decode_bits(const Matrix &mask, const Region &at, void *to, int64_t pitch) {
    auto *bytes = static_cast<std::uint8_t *>(to);
    for (int64_t r = 0; r < at.rows; ++r, bytes += pitch)
        for (int64_t c = 0; c < at.columns; c += STEP) {
            const int64_t j = at.j + c;
            std::uint64_t bits = *address<std::uint32_t>(mask, at.i + r, j / 32) >> j % 32 & 0xff;
            const int64_t inside = std::min<int64_t>(STEP, at.columns - c);
            // copy the eight bits into each byte, then keep bit b in byte b
            bits = bits * 0x0101010101010101 & 0x8040201008040201;
            std::memcpy(bytes + c, &bits, std::size_t(inside));
        }
}

}  // namespace mf
