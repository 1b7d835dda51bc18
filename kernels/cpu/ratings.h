// Ratings and masks of any dtype and strides, handed out one register tile at a time: in place where the memory is
// what the inner loop reads (T, and one byte a mask element), else as a decoded copy that never leaves L1.

#pragma once

#include <algorithm>
#include <limits>

#include "simd.h"

struct Matrix {  // [users, items]
    const void *data;
    int64_t row_stride, column_stride, kind;
};

enum RatingKind { FLOAT64, FLOAT32, BFLOAT16, FLOAT16, UINT8, INT8 };
enum MaskKind { NO_MASK = 0, SIGNED_ZERO = 16 };  // else bytes an element, plus SIGNED_ZERO where -0.0 is zero too

struct BFloat16Bits { std::uint16_t bits; };
struct Float16Bits { std::uint16_t bits; };

inline float as_float(std::uint32_t bits) { return load<float>(&bits); }

template <class T, class S> inline T convert(S value) { return T(value); }
template <class T> inline T convert(BFloat16Bits value) { return T(as_float(std::uint32_t(value.bits) << 16)); }
template <class T> inline T convert(Float16Bits value) {
    const std::uint32_t sign = std::uint32_t(value.bits & 0x8000) << 16, magnitude = value.bits & 0x7fff;
    const float finite = as_float(magnitude << 13) * 0x1p112f;  // rebias the exponent; exact for subnormals too
    std::uint32_t bits = load<std::uint32_t>(&finite);
    if (magnitude >= 0x7c00) bits = (magnitude << 13) | 0x7f800000;
    return T(as_float(bits | sign));
}

// to[i, j] = element(from[i, j]) for the rows and columns given; what lies outside keeps its value.
template <class T, class S, class To, class Element>
inline void decode(const void *from, const Matrix &matrix, int rows, int columns, To *to, Element element) {
    constexpr int NR = Simd<T>::NR;
    for (int i = 0; i < rows; ++i) {
        const S *row = static_cast<const S *>(from) + i * matrix.row_stride;
        if (columns == NR && matrix.column_stride == 1)
            for (int j = 0; j < NR; ++j) to[i * NR + j] = element(row[j]);
        else
            for (int j = 0; j < columns; ++j) to[i * NR + j] = element(row[j * matrix.column_stride]);
    }
}

template <class T, class S>
void decode_ratings(const void *from, const Matrix &ratings, int rows, int columns, T *to) {
    decode<T, S>(from, ratings, rows, columns, to, [](S value) { return convert<T>(value); });
}

template <class T, class Bits>
void decode_mask(const void *from, const Matrix &mask, int rows, int columns, std::uint8_t *to) {
    const Bits all = Bits(~Bits(0)), kept = mask.kind & SIGNED_ZERO ? Bits(all >> 1) : all;
    decode<T, Bits>(from, mask, rows, columns, to, [kept](Bits bits) -> std::uint8_t { return (bits & kept) != 0; });
}

template <class T> struct Observations {  // a register tile
    const T *ratings;
    const std::uint8_t *mask;  // unused without a mask
    int64_t rating_stride, mask_stride;

    template <bool masked> typename Simd<T>::Lanes missing(int i, int v, typename Simd<T>::Vector rating) const {
        if constexpr (masked) return widen<T>(mask + i * mask_stride + v * Simd<T>::LANES) == 0;
        else return rating != rating;
    }

    template <bool masked> bool any() const {
        if constexpr (masked) {
            auto bits = load<typename Simd<T>::ByteRow>(mask);
            for (int i = 1; i < MR; ++i) bits |= load<typename Simd<T>::ByteRow>(mask + i * mask_stride);
            return nonzero(bits);
        } else {
            typename Simd<T>::Lanes bits = {};
            for (int i = 0; i < MR; ++i)
                for (int v = 0; v < Simd<T>::NV; ++v) {
                    const auto rating =
                        load<typename Simd<T>::Vector>(ratings + i * rating_stride + v * Simd<T>::LANES);
                    bits |= rating == rating;
                }
            return nonzero(bits);
        }
    }

  private:
    template <class V> static bool nonzero(V v) {
        std::uint64_t words[(sizeof v + 7) / 8] = {}, all = 0;
        std::memcpy(words, &v, sizeof v);
        for (auto word : words) all |= word;
        return all != 0;
    }
};

template <class T> class Ratings {
  public:
    static constexpr int NR = Simd<T>::NR;

    struct Copy {
        T ratings[MR * NR];
        std::uint8_t mask[MR * NR];
    };

    Ratings(const Matrix &ratings, const Matrix &mask) : ratings_(ratings), mask_(mask) {
        using Bits = std::uint64_t;
        static constexpr int bytes[] = {8, 4, 2, 2, 1, 1};
        static constexpr decltype(decode_ratings_) decoders[] = {
            decode_ratings<T, double>,      decode_ratings<T, float>,        decode_ratings<T, BFloat16Bits>,
            decode_ratings<T, Float16Bits>, decode_ratings<T, std::uint8_t>, decode_ratings<T, std::int8_t>};
        rating_bytes_ = bytes[ratings.kind];
        decode_ratings_ = decoders[ratings.kind];
        mask_bytes_ = mask.kind & ~SIGNED_ZERO;
        decode_mask_ = mask_bytes_ == 8   ? decode_mask<T, Bits>
                       : mask_bytes_ == 4 ? decode_mask<T, std::uint32_t>
                       : mask_bytes_ == 2 ? decode_mask<T, std::uint16_t>
                                          : decode_mask<T, std::uint8_t>;
        ratings_fit_ = ratings.kind == (sizeof(T) == 8 ? FLOAT64 : FLOAT32) && ratings.column_stride == 1;
        mask_fits_ = mask.kind == 1 && mask.column_stride == 1;
        in_place_ = ratings_fit_ && (mask_fits_ || !masked());
    }

    bool masked() const { return mask_.kind != NO_MASK; }

    // The tile at (i, j), of which rows x columns lie inside the matrix; nothing is observed in the rest.
    Observations<T> tile(int64_t i, int64_t j, int64_t rows, int64_t columns, Copy &copy) const {
        if (in_place_ && rows >= MR && columns >= NR)
            return {static_cast<const T *>(rating(i, j)), static_cast<const std::uint8_t *>(mask(i, j)),
                    ratings_.row_stride, mask_.row_stride};
        return decoded(i, j, int(std::min<int64_t>(rows, MR)), int(std::min<int64_t>(columns, NR)), copy);
    }

    void prefetch(int64_t i, int64_t j) const {
        const auto line = [](const void *start, int64_t bytes) { __builtin_prefetch((const char *)start + bytes); };
        const void *ratings = rating(i, j), *masks = mask(i, j);
        for (int r = 0; r < MR; ++r) line(ratings, r * ratings_.row_stride * rating_bytes_);
        if (rating_bytes_ * NR > 64)
            for (int r = 0; r < MR; ++r) line(ratings, r * ratings_.row_stride * rating_bytes_ + 64);
        if (masked() && j * mask_bytes_ % 64 < NR * mask_bytes_)  // the tile begins a cache line of the mask
            for (int r = 0; r < MR; ++r) line(masks, r * mask_.row_stride * mask_bytes_);
    }

  private:
    Matrix ratings_, mask_;
    int64_t rating_bytes_, mask_bytes_;
    void (*decode_ratings_)(const void *, const Matrix &, int, int, T *);
    void (*decode_mask_)(const void *, const Matrix &, int, int, std::uint8_t *);
    bool ratings_fit_, mask_fits_, in_place_;

    const void *rating(int64_t i, int64_t j) const { return at(ratings_, rating_bytes_, i, j); }
    const void *mask(int64_t i, int64_t j) const { return at(mask_, mask_bytes_, i, j); }
    static const void *at(const Matrix &matrix, int64_t bytes, int64_t i, int64_t j) {
        const int64_t offset = (i * matrix.row_stride + j * matrix.column_stride) * bytes;
        return reinterpret_cast<const void *>(reinterpret_cast<std::intptr_t>(matrix.data) + offset);
    }

    __attribute__((noinline)) Observations<T> decoded(int64_t i, int64_t j, int rows, int columns, Copy &copy) const {
        const bool whole = rows == MR && columns == NR;
        Observations<T> tile = {copy.ratings, copy.mask, NR, NR};
        if (whole && ratings_fit_) {
            tile.ratings = static_cast<const T *>(rating(i, j));
            tile.rating_stride = ratings_.row_stride;
        } else {
            if (!whole) std::fill_n(copy.ratings, MR * NR, masked() ? T(0) : std::numeric_limits<T>::quiet_NaN());
            decode_ratings_(rating(i, j), ratings_, rows, columns, copy.ratings);
        }
        if (!masked()) return tile;
        if (whole && mask_fits_) {
            tile.mask = static_cast<const std::uint8_t *>(mask(i, j));
            tile.mask_stride = mask_.row_stride;
        } else {
            if (!whole) std::fill_n(copy.mask, MR * NR, std::uint8_t(0));
            decode_mask_(mask(i, j), mask_, rows, columns, copy.mask);
        }
        return tile;
    }
};
