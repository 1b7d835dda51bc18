// Elements of ratings and masks: their types, and copies of a few rows in a type that the inner loops read.

#pragma once

#include <algorithm>
#include <type_traits>

#include "simd.h"

struct Matrix {  // [users, items]
    const void *data;
    int64_t row_stride, column_stride, kind;
};

// CODES: uint8, MISSING_CODE where missing.
enum RatingKind { FLOAT64, FLOAT32, BFLOAT16, FLOAT16, UINT8, INT8, CODES };
// No mask, one bit an element in words of 32 items, or the bytes of an element, plus SIGNED_ZERO where -0.0 is zero.
enum MaskKind { NO_MASK = 0, SIGNED_ZERO = 16, BITS = 32 };

constexpr std::uint8_t MISSING_CODE = 255;

struct BFloat16Bits { std::uint16_t bits; };
struct Float16Bits { std::uint16_t bits; };

inline float as_float(std::uint32_t bits) { return __builtin_bit_cast(float, bits); }

template <class T, class S> inline T convert(S value) { return T(value); }
template <class T> inline T convert(BFloat16Bits value) { return T(as_float(std::uint32_t(value.bits) << 16)); }
template <class T> inline T convert(Float16Bits value) {
    const std::uint32_t sign = std::uint32_t(value.bits & 0x8000) << 16, magnitude = value.bits & 0x7fff;
    const float finite = as_float(magnitude << 13) * 0x1p112f;  // rebias the exponent; exact for subnormals too
    const std::uint32_t special = (magnitude << 13) | 0x7f800000;  // infinity and NaN
    return T(as_float((magnitude < 0x7c00 ? __builtin_bit_cast(std::uint32_t, finite) : special) | sign));
}

// to[c] = element(from[c]), with the conversions that compilers make one by one.
template <int N, class To, class S, class Element> inline void decode_group(const S *from, To *to, Element element) {
    if constexpr (std::is_same_v<S, std::uint8_t> && std::is_floating_point_v<To>) {
        for (int c = 0; c < N; c += Simd<To>::LANES) store(to + c, from_small<To>(widen<To>(from + c)));
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
    To decoded[N];  // a store of bytes might alias anything
    for (int c = 0; c < N; ++c) decoded[c] = element(from[c]);
    std::memcpy(to, decoded, sizeof decoded);
}

// The address of an element; prefetching asks for some that are outside, so this is arithmetic on integers.
template <class S> inline const S *address(const Matrix &matrix, int64_t i, int64_t j) {
    const int64_t offset = (i * matrix.row_stride + j * matrix.column_stride) * int64_t(sizeof(S));
    return reinterpret_cast<const S *>(reinterpret_cast<std::intptr_t>(matrix.data) + offset);
}

struct Region {
    int64_t i, j, rows, columns;
};

constexpr int GROUP = 16;  // elements decoded together

// to[r, c] = element(matrix[i + r, j + c]); rows of `to` lie `pitch` apart.
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

// Words as they are: mask elements that are read in place elsewhere, or codes.
template <class Word> void copy_words(const Matrix &words, const Region &at, void *to, int64_t pitch) {
    decode<Word>(words, at, static_cast<Word *>(to), pitch, [](Word word) { return word; });
}

template <class Word> void decode_mask(const Matrix &mask, const Region &at, void *to, int64_t pitch) {
    const Word all = Word(~Word(0)), kept = mask.kind & SIGNED_ZERO ? Word(all >> 1) : all;
    decode<Word>(mask, at, static_cast<std::uint8_t *>(to), pitch,
                 [kept](Word word) -> std::uint8_t { return (word & kept) != 0; });
}

// STEP: what at.j is a multiple of, so that as many columns lie in one word.
template <int STEP> void decode_bits(const Matrix &mask, const Region &at, void *to, int64_t pitch) {
    auto *bytes = static_cast<std::uint8_t *>(to);
    for (int64_t r = 0; r < at.rows; ++r, bytes += pitch)
        for (int64_t c = 0; c < at.columns; c += STEP) {
            const int64_t j = at.j + c;
            std::uint64_t bits = *address<std::uint32_t>(mask, at.i + r, j / 32) >> j % 32 & 0xff;
            const int64_t inside = std::min<int64_t>(STEP, at.columns - c);
            // eight copies of eight bits, of which each byte keeps its own
            bits = bits * 0x0101010101010101 & 0x8040201008040201;
            std::memcpy(bytes + c, &bits, std::size_t(inside));
        }
}
