// Reading of a matrix of any dtype and strides for the inner loops, one panel at a time.

#pragma once

#include <cstring>

#include "dtypes.h"

namespace mf {

constexpr int64_t CACHE_LINE = 64;  // bytes

// Where ratings, each read once, are prefetched to, as in __builtin_prefetch: 0, past L2; 2, into L2. build.py chooses.
#ifndef RATINGS_LOCALITY
#define RATINGS_LOCALITY 0
#endif

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

    // Returns up to MR rows of whole micro-tiles, or of part of one, which is completed with missing elements. Decoded
    // elements go to `copy`, [MR, ITEMS], from `column` on.
    Rows read(const Region &at, char *copy, int64_t column) const {
        const bool whole = at.columns % NR == 0;
        if (whole && in_place) return {address(at.i, at.j), matrix.row_stride};
        const auto pitch = std::size_t(ITEMS) * decoded_size;
        copy += std::size_t(column) * decoded_size;
        for (int r = 0; !whole && r < MR; ++r) std::memset(copy + std::size_t(r) * pitch, missing, NR * decoded_size);
        decode(matrix, at, copy, ITEMS);
        return {copy, ITEMS};
    }

    // Prefetches the cache lines that begin in the micro-tile at (i, j). Always inlined, because GCC drops calls of a
    // function that only prefetches.
    ALWAYS_INLINE void prefetch(int64_t i, int64_t j) const {
        if (!size || (j & (line_columns - 1)) >= NR) return;
        const char *start = address(i, matrix.kind == BITS ? j / 32 : j);
        for (int64_t column = 0; column < NR; column += line_columns, start += CACHE_LINE)
            for (int r = 0; r < MR; ++r)
                __builtin_prefetch(start + r * matrix.row_stride * size, 0, RATINGS_LOCALITY);
    }

  private:
    const char *address(int64_t i, int64_t j) const {
        return mf::address<char>({matrix.data, matrix.row_stride * size, matrix.column_stride * size, 0}, i, j);
    }
};

}  // namespace mf
