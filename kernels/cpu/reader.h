// Reading of a matrix of any dtype and strides for the inner loops, one panel at a time.

#pragma once

#include <cstring>

#include "dtypes.h"

namespace mf {

constexpr int64_t CACHE_LINE = 64;  // bytes

struct Position {  // in a matrix, perhaps outside it
    int64_t i, j;
};

// Where ratings, each read once, are prefetched to, as in __builtin_prefetch: 0, past L2; 2, into L2. build.py chooses 2
// for some processors. Where errors are made in registers, lines in L1 would make room for factors before they are read.
#ifndef RATINGS_LOCALITY
#define RATINGS_LOCALITY (ERRORS_IN_REGISTERS ? 2 : 0)
#endif

struct TileLines {  // the same number of adjacent cache lines in every row
    const char *start = nullptr;
    int64_t stride = 0, count = 0;  // bytes between rows; lines of a row

    // Prefetches those of row r. Always inlined, because GCC drops calls of a function that only prefetches.
    ALWAYS_INLINE void prefetch(int64_t r) const {
        for (int64_t line = 0; line < count; ++line)
            __builtin_prefetch(start + r * stride + line * CACHE_LINE, 0, RATINGS_LOCALITY);
    }
};

// Reads rows in place where they are contiguous, of a type that the inner loops convert in registers, and whole
// micro-tiles long; decodes them into a small copy otherwise.
template <class T, int ITEMS> struct MatrixReader {
    static constexpr int NR = Simd<T>::NR;
    using Decode = void (*)(const Matrix &, const Region &, void *, int64_t);

    struct Rows {
        const void *data;
        int64_t stride;
    };

    Matrix matrix;
    int64_t size = 0;              // bytes of an element, or of a word of mask bits; 0 if there is no matrix
    int64_t line_columns = 1;      // columns of a cache line
    bool in_place = false;         // the inner loops can read the matrix itself
    Decode decode = nullptr;       // makes the copy
    std::size_t decoded_size = 0;  // bytes of an element of the copy
    int missing = 0;               // every byte of an element that reads as missing

    // Returns up to MR rows of whole micro-tiles, or of part of one, which is completed with missing elements, as are
    // MR rows where errors are made in registers. Decoded elements go to `copy`, [MR, ITEMS], from `column` on.
    Rows read(const Region &at, char *copy, int64_t column) const {
        const bool whole = at.columns % NR == 0 && (!ERRORS_IN_REGISTERS || at.rows == MR);
        if (whole && in_place) return {address(at.i, at.j), matrix.row_stride};
        const auto pitch = std::size_t(ITEMS) * decoded_size;
        copy += std::size_t(column) * decoded_size;
        const std::size_t bytes = std::size_t(round_up(at.columns, NR)) * decoded_size;
        for (int r = 0; !whole && r < MR; ++r) std::memset(copy + std::size_t(r) * pitch, missing, bytes);
        decode(matrix, at, copy, ITEMS);
        return {copy, ITEMS};
    }

    // Returns the cache lines of MR rows that begin in a micro-tile.
    ALWAYS_INLINE TileLines lines(const Position &at) const {
        if (!size || (at.j & (line_columns - 1)) >= NR) return {};
        const char *start = address(at.i, matrix.kind == BITS ? at.j / 32 : at.j);
        return {start, matrix.row_stride * size, std::max<int64_t>(1, NR / line_columns)};
    }

  private:
    const char *address(int64_t i, int64_t j) const {
        return mf::address<char>({matrix.data, matrix.row_stride * size, matrix.column_stride * size, 0}, i, j);
    }
};

}  // namespace mf
