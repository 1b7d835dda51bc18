// Element types of ratings and masks, and their decoding into the few types that the inner loops read.

#pragma once

#include <algorithm>
#include <limits>
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

constexpr int64_t RATING_BYTES[] = {8, 4, 2, 2, 1, 1, 1};  // of an element, by RatingKind

constexpr std::uint8_t MISSING_CODE = 255;

// Types of masks, numbered as in launch.py: NO_MASK; the bytes of an integer, which is not 0 where observed; BITS, one
// bit per element in 32-bit words along the items; or the type of the weights, 0 where unobserved.
enum MaskKind {
    NO_MASK = 0, BITS = 16, FLOAT64_WEIGHTS, FLOAT32_WEIGHTS, BFLOAT16_WEIGHTS, FLOAT16_WEIGHTS, FLOAT8_E5M2_WEIGHTS,
    FLOAT8_E4M3FN_WEIGHTS
};

struct BFloat16Bits { std::uint16_t bits; };
struct Float16Bits { std::uint16_t bits; };
struct Float8E5M2Bits { std::uint8_t bits; };  // the upper half of a Float16Bits
struct Float8E4M3FNBits { std::uint8_t bits; };  // no infinity

inline float as_float(std::uint32_t bits) { return __builtin_bit_cast(float, bits); }

template <class T, class S> inline T convert(S value) { return T(value); }
template <class T> inline T convert(BFloat16Bits value) { return T(as_float(std::uint32_t(value.bits) << 16)); }
template <class T> inline T convert(Float16Bits value) {
    const std::uint32_t sign = std::uint32_t(value.bits & 0x8000) << 16, magnitude = value.bits & 0x7fff;
    const float finite = as_float(magnitude << 13) * 0x1p112f;  // rebiases the exponent; exact for subnormals too
    const std::uint32_t special = (magnitude << 13) | 0x7f800000;  // infinity and NaN
    return T(as_float((magnitude < 0x7c00 ? __builtin_bit_cast(std::uint32_t, finite) : special) | sign));
}
template <class T> inline T convert(Float8E5M2Bits value) {
    return convert<T>(Float16Bits{std::uint16_t(value.bits << 8)});
}
template <class T> inline T convert(Float8E4M3FNBits value) {
    const std::uint32_t sign = std::uint32_t(value.bits & 0x80) << 24, magnitude = value.bits & 0x7f;
    const float finite = as_float(magnitude << 20) * 0x1p120f;
    return T(as_float((magnitude < 0x7f ? __builtin_bit_cast(std::uint32_t, finite) : 0x7fc00000) | sign));
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

// Decodes weights. One that T cannot hold becomes the smallest normal number: it is still observed.
template <class To, class S>
void decode_weights(const Matrix &weights, const Region &at, void *to, int64_t pitch) {
    decode<S>(weights, at, static_cast<To *>(to), pitch, [](S value) {
        const To weight = convert<To>(value);
        if constexpr (sizeof(S) > sizeof(To))
            return weight == 0 && value != 0 ? std::numeric_limits<To>::min() : weight;
        return weight;
    });
}

// Copies words without decoding: codes, or mask elements of a type that could also be read in place.
template <class Word> void copy_words(const Matrix &words, const Region &at, void *to, int64_t pitch) {
    decode<Word>(words, at, static_cast<Word *>(to), pitch, [](Word word) { return word; });
}

// Decodes mask elements to bytes, 1 where observed.
template <class Word> void decode_mask(const Matrix &mask, const Region &at, void *to, int64_t pitch) {
    decode<Word>(mask, at, static_cast<std::uint8_t *>(to), pitch,
                 [](Word word) -> std::uint8_t { return word != 0; });
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
