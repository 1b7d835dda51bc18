// Ratings and masks of any dtype and strides, handed out one register tile at a time: in place where the memory is
// what the inner loop reads (T and one byte a mask element, T with NaN, or codes), else as a decoded copy in L1.

#pragma once

#include <algorithm>
#include <limits>
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
enum class Missing { BY_MASK, BY_NAN, BY_CODE };  // how a register tile says so

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
template <int N, class T, class S, class Element> inline void decode_row(const S *from, T *to, Element element) {
    if constexpr (std::is_same_v<S, std::uint8_t> && std::is_floating_point_v<T>) {
        constexpr int LANES = Simd<T>::LANES;
        for (int c = 0; c < N; c += LANES) store(to + c, from_small<T>(widen<T>(from + c)));
        return;
    }
#if defined(__F16C__)
    if constexpr (std::is_same_v<S, Float16Bits> && N % 8 == 0) {
        float decoded[N];
        for (int c = 0; c < N; c += 8) store(decoded + c, _mm256_cvtph_ps(load<__m128i>(from + c)));
        for (int c = 0; c < N; ++c) to[c] = T(decoded[c]);
        return;
    }
#endif
    for (int c = 0; c < N; ++c) to[c] = element(from[c]);
}

// The address of an element; prefetching asks for some that are outside, so this is arithmetic on integers.
template <class S> inline const S *address(const Matrix &matrix, int64_t i, int64_t j) {
    const int64_t offset = (i * matrix.row_stride + j * matrix.column_stride) * int64_t(sizeof(S));
    return reinterpret_cast<const S *>(reinterpret_cast<std::intptr_t>(matrix.data) + offset);
}

struct Region {  // the part of a register tile that lies inside the matrix
    int64_t i, j;
    int rows, columns;
};

// to[r, c] = element(matrix[i + r, j + c]); outside the region `to` keeps its values.
template <int NR, class S, class To, class Element>
inline void decode(const Matrix &matrix, const Region &region, To *to, Element element) {
    const Region at = region;  // copies, since a store of bytes might alias anything
    const int64_t stride = matrix.column_stride;
    for (int r = 0; r < at.rows; ++r, to += NR) {
        const S *row = address<S>(matrix, at.i + r, at.j);
        if (at.columns == NR && stride == 1) {
            To decoded[NR];
            decode_row<NR>(row, decoded, element);
            std::memcpy(to, decoded, sizeof decoded);
        } else {
            for (int c = 0; c < at.columns; ++c) to[c] = element(row[c * stride]);
        }
    }
}

template <class T, class S> void decode_ratings(const Matrix &ratings, const Region &at, T *to) {
    decode<Simd<T>::NR, S>(ratings, at, to, [](S value) { return convert<T>(value); });
}

template <int NR, class Word> void decode_mask(const Matrix &mask, const Region &at, std::uint8_t *to) {
    const Word all = Word(~Word(0)), kept = mask.kind & SIGNED_ZERO ? Word(all >> 1) : all;
    decode<NR, Word>(mask, at, to, [kept](Word word) -> std::uint8_t { return (word & kept) != 0; });
}

template <int NR> void decode_bits(const Matrix &mask, const Region &at, std::uint8_t *to) {
    static_assert(32 % NR == 0);  // a row of the tile lies in one word
    for (int r = 0; r < at.rows; ++r, to += NR) {
        std::uint64_t bits = *address<std::uint32_t>(mask, at.i + r, at.j / 32) >> at.j % 32;
        bits &= (std::uint64_t(1) << at.columns) - 1;
        for (int c = 0; c < NR; c += 8, bits >>= 8) {  // eight copies of eight bits, of which each byte keeps its own
            const std::uint64_t bytes = (bits & 0xff) * 0x0101010101010101 & 0x8040201008040201;
            std::memcpy(to + c, &bytes, std::min(NR, 8));
        }
    }
}

template <int NR> void decode_codes(const Matrix &codes, const Region &at, std::uint8_t *to) {
    decode<NR, std::uint8_t>(codes, at, to, [](std::uint8_t code) { return code; });
}

template <class T> struct Observations {  // a register tile
    using V = typename Simd<T>::Vector;
    using Lanes = typename Simd<T>::Lanes;
    using ByteRow = typename Simd<T>::ByteRow;
    static constexpr int LANES = Simd<T>::LANES;

    const T *ratings;           // unused with codes
    const std::uint8_t *bytes;  // mask or codes
    int64_t rating_stride, byte_stride;
    T scale, offset;  // of codes

    template <Missing how> V rating(int i, int v) const {
        if constexpr (how == Missing::BY_CODE) return from_small<T>(widen<T>(byte(i, v))) * scale + offset;
        else return load<V>(ratings + i * rating_stride + v * LANES);
    }

    template <Missing how> Lanes missing(int i, int v, V rating) const {
        if constexpr (how == Missing::BY_MASK) return widen<T>(byte(i, v)) == 0;
        if constexpr (how == Missing::BY_CODE) return widen<T>(byte(i, v)) == MISSING_CODE;
        return rating != rating;
    }

    template <Missing how> bool any() const {
        if constexpr (how == Missing::BY_NAN) {
            Lanes seen = {};
            for (int i = 0; i < MR; ++i)
                for (int v = 0; v < Simd<T>::NV; ++v) {
                    const V value = rating<how>(i, v);
                    seen |= value == value;
                }
            return nonzero(seen);
        }
        ByteRow seen = {};
        for (int i = 0; i < MR; ++i) {
            const ByteRow row = load<ByteRow>(byte(i, 0));
            seen |= how == Missing::BY_CODE ? row ^ MISSING_CODE : row;
        }
        return nonzero(seen);
    }

  private:
    const std::uint8_t *byte(int i, int v) const { return bytes + i * byte_stride + v * LANES; }

    template <class Bits> static bool nonzero(Bits bits) {
        std::uint64_t words[(sizeof bits + 7) / 8] = {}, all = 0;
        std::memcpy(words, &bits, sizeof bits);
        for (auto word : words) all |= word;
        return all != 0;
    }
};

template <class T> class Ratings {
  public:
    static constexpr int NR = Simd<T>::NR;

    struct Copy {
        T ratings[MR * NR];
        std::uint8_t bytes[MR * NR];
    };

    const Missing how;

    // mask: of no kind where the ratings say what is missing, as NaN or as codes.
    Ratings(const Matrix &ratings, const Matrix &mask, double scale, double offset)
        : how(ratings.kind == CODES     ? Missing::BY_CODE
              : mask.kind == NO_MASK ? Missing::BY_NAN
                                     : Missing::BY_MASK),
          ratings_(ratings), bytes_(ratings.kind == CODES ? ratings : mask), scale_(T(scale)), offset_(T(offset)) {
        using Decoder = void (*)(const Matrix &, const Region &, T *);
        static constexpr Decoder decoders[] = {
            decode_ratings<T, double>,      decode_ratings<T, float>,        decode_ratings<T, BFloat16Bits>,
            decode_ratings<T, Float16Bits>, decode_ratings<T, std::uint8_t>, decode_ratings<T, std::int8_t>, nullptr};
        static constexpr int sizes[] = {8, 4, 2, 2, 1, 1, 1};
        rating_size_ = sizes[ratings.kind];
        decode_ratings_ = decoders[ratings.kind];
        const int64_t size = mask.kind & ~SIGNED_ZERO;
        decode_bytes_ = how == Missing::BY_CODE ? decode_codes<NR>
                        : mask.kind == BITS     ? decode_bits<NR>
                        : size == 8             ? decode_mask<NR, std::uint64_t>
                        : size == 4             ? decode_mask<NR, std::uint32_t>
                        : size == 2             ? decode_mask<NR, std::uint16_t>
                                                : decode_mask<NR, std::uint8_t>;
        byte_size_ = how == Missing::BY_CODE ? 1 : mask.kind == BITS ? 4 : size;
        bytes_line_ = mask.kind == BITS ? 512 : 64 / std::max<int64_t>(byte_size_, 1);
        ratings_fit_ = how == Missing::BY_CODE ||
                       (ratings.kind == (sizeof(T) == 8 ? FLOAT64 : FLOAT32) && ratings.column_stride == 1);
        bytes_fit_ = how == Missing::BY_NAN ||
                     ((how == Missing::BY_CODE || mask.kind == 1) && bytes_.column_stride == 1);
    }

    // The tile at (i, j), of which rows x columns lie inside the matrix; nothing is observed in the rest.
    Observations<T> tile(int64_t i, int64_t j, int64_t rows, int64_t columns, Copy &copy) const {
        if (ratings_fit_ && bytes_fit_ && rows >= MR && columns >= NR)
            return {address<T>(ratings_, i, j), address<std::uint8_t>(bytes_, i, j), ratings_.row_stride,
                    bytes_.row_stride, scale_, offset_};
        return decoded({i, j, int(std::min<int64_t>(rows, MR)), int(std::min<int64_t>(columns, NR))}, copy);
    }

    // Inlined by force: GCC drops the call of a function that does nothing else.
    ALWAYS_INLINE void prefetch(int64_t i, int64_t j, bool observed) const {
        if (how == Missing::BY_NAN || (how == Missing::BY_MASK && observed))
            prefetch(ratings_, rating_size_, 64 / rating_size_, i, j);
        if (how != Missing::BY_NAN) prefetch(bytes_, byte_size_, bytes_line_, i, j);
    }

  private:
    Matrix ratings_, bytes_;
    T scale_, offset_;
    void (*decode_ratings_)(const Matrix &, const Region &, T *);
    void (*decode_bytes_)(const Matrix &, const Region &, std::uint8_t *);
    int64_t rating_size_, byte_size_, bytes_line_;  // of an element, or a word of bits; elements of a cache line
    bool ratings_fit_, bytes_fit_;

    // The cache lines that begin in the tile at (i, j).
    static ALWAYS_INLINE void prefetch(const Matrix &matrix, int64_t size, int64_t line, int64_t i, int64_t j) {
        if ((j & (line - 1)) >= NR) return;
        const int64_t word = 64 / size == line ? j : j / 32, row = matrix.row_stride * size;
        const char *start = address<char>({matrix.data, row, matrix.column_stride * size, 0}, i, word);
        for (int64_t column = 0; column < NR; column += line, start += 64)
            for (int r = 0; r < MR; ++r) __builtin_prefetch(start + r * row);
    }

    __attribute__((noinline)) Observations<T> decoded(const Region &at, Copy &copy) const {
        const bool whole = at.rows == MR && at.columns == NR;
        Observations<T> tile = {copy.ratings, copy.bytes, NR, NR, scale_, offset_};
        if (whole && ratings_fit_) {
            tile.ratings = address<T>(ratings_, at.i, at.j);
            tile.rating_stride = ratings_.row_stride;
        } else if (how != Missing::BY_CODE) {
            if (!whole) std::fill_n(copy.ratings, MR * NR, std::numeric_limits<T>::quiet_NaN());
            decode_ratings_(ratings_, at, copy.ratings);
        }
        if (whole && bytes_fit_) {
            tile.bytes = address<std::uint8_t>(bytes_, at.i, at.j);
            tile.byte_stride = bytes_.row_stride;
        } else if (how != Missing::BY_NAN) {
            if (!whole) std::fill_n(copy.bytes, MR * NR, how == Missing::BY_CODE ? MISSING_CODE : std::uint8_t(0));
            decode_bytes_(bytes_, at, copy.bytes);
        }
        return tile;
    }
};
