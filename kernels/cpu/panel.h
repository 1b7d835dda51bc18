// The inner loops over ratings: errors of a panel of MR users, and which of its micro-tiles have observed ratings.

#pragma once

#include "bitset.h"
#include "dtypes.h"
#include "microkernels.h"

namespace mf {

enum class Missing { BY_MASK, BY_WEIGHT, BY_NAN, BY_CODE };  // how a missing rating is marked

template <class T> struct RatingsPanel {  // up to MR users x whole micro-tiles of items
    int64_t rows, columns;
    const void *ratings, *words;  // [rows, columns]; words are mask elements, weights or codes
    int64_t rating_stride, word_stride;
    T scale, offset;  // of codes
};

template <class T> struct PanelErrors {
    T *E;  // [rows, columns], leading dimension lde: half the gradient of the predictions
    int64_t lde;
    T *column_sums;        // of E, which is added to these two
    double row_sums[MR];
    double squares;        // of the weighted errors
};

// Vector access to one row of a panel. Stored is T or float64; Word is a byte, an integer as wide as T, or T (weights).
template <class T, Missing how, class Stored, class Word> struct PanelRow {
    using V = typename Simd<T>::Vector;
    using Lanes = typename Simd<T>::Lanes;

    const Stored *ratings;
    const Word *words;
    V scale, offset;

    PanelRow() = default;
    ALWAYS_INLINE PanelRow(const RatingsPanel<T> &panel, int64_t r)
        : ratings(static_cast<const Stored *>(panel.ratings) + r * panel.rating_stride),
          words(static_cast<const Word *>(panel.words) + r * panel.word_stride), scale(V{} + panel.scale),
          offset(V{} + panel.offset) {}

    ALWAYS_INLINE V rating(int64_t c) const {
        if constexpr (how == Missing::BY_CODE) return small_to_float<T>(widen<T>(words + c)) * scale + offset;
        else return load_as<T>(ratings + c);
    }

    ALWAYS_INLINE V weight(int64_t c) const { return load<V>(words + c); }

    ALWAYS_INLINE Lanes missing(int64_t c) const {
        if constexpr (how == Missing::BY_NAN) return rating(c) != rating(c);
        else if constexpr (how == Missing::BY_WEIGHT) return weight(c) == 0;
        else if constexpr (how == Missing::BY_CODE) return widen<T>(words + c) == MISSING_CODE;
        else if constexpr (sizeof(Word) == 1) return widen<T>(words + c) == 0;
        else return load<Lanes>(words + c) == 0;
    }

    ALWAYS_INLINE void advance(int64_t rating_stride, int64_t word_stride) {
        ratings += rating_stride;
        words += word_stride;
    }

    // Turns a prediction into its error, 0 where unobserved.
    ALWAYS_INLINE V error(int64_t c, V prediction) const {
        const V difference = prediction - rating(c);
        const V error = (V)((Lanes)difference & ~missing(c));
        if constexpr (how == Missing::BY_WEIGHT) return error * weight(c);
        else return error;
    }

    // Returns half the gradient of a prediction from its error.
    ALWAYS_INLINE V half_gradient(int64_t c, V error) const {
        if constexpr (how == Missing::BY_WEIGHT) return error * weight(c);
        else return error;
    }
};

// Turns predictions in memory into errors, E = E + biases - ratings where observed and 0 elsewhere, for ROWS rows and
// columns begin to end, and adds up their sums and squares. Weights multiply the errors, and once more those stored and
// summed.
template <class T, Missing how, class Stored, class Word, int ROWS>
ALWAYS_INLINE void row_errors(const RatingsPanel<T> &panel, int64_t first, int64_t begin, int64_t end,
                              const T *user_bias, const T *item_bias, PanelErrors<T> &to) {
    using V = typename Simd<T>::Vector;
    PanelRow<T, how, Stored, Word> rows[ROWS];
    T *E[ROWS];
    V bias[ROWS], sums[ROWS] = {}, squares[ROWS] = {}, one = V{} + 1;
    keep_in_register(one);  // one of the sums uses a multiply-add: the adders are busier than the multipliers
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) {
        rows[r] = {panel, first + r};
        E[r] = to.E + (first + r) * to.lde;
        bias[r] = V{} + user_bias[first + r];
    }
    for (int64_t c = begin; c < end; c += Simd<T>::LANES) {
        V column = load<V>(to.column_sums + c);
        const V item = load<V>(item_bias + c);
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; ++r) {
            const V error = rows[r].error(c, load<V>(E[r] + c) + bias[r] + item);
            const V half = rows[r].half_gradient(c, error);
            store(E[r] + c, half);
            column += half;
            sums[r] += half * one;
            squares[r] += error * error;
        }
        store(to.column_sums + c, column);
    }
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) {
        to.row_sums[first + r] += sum_lanes<T>(sums[r]);
        if (r > 0) squares[0] += squares[r];
    }
    to.squares += sum_lanes<T>(squares[0]);
}

template <class T> struct PanelFactors {  // and biases, of MR users and of the items of a panel
    int64_t rank, ld;
    const T *P, *Qt;  // [MR, ld]; micro-panels [columns / NR, ld, NR]
    const T *user_bias, *item_bias;
};

template <class T> struct PanelSums {  // of half gradients by row, and of squared errors
    typename Simd<T>::Vector rows[MR] = {}, squares[Simd<T>::NV] = {};
};

// Turns a micro-tile of predictions in registers, which lack the user's bias, into errors, and stores them. `c`: its
// first column in the panel.
template <class T, Missing how, class Stored, class Word>
ALWAYS_INLINE void tile_errors(const RatingsPanel<T> &panel, const T *user_bias, int64_t c, const MicroTile<T> &e,
                               PanelSums<T> &sums, PanelErrors<T> &to) {
    using V = typename Simd<T>::Vector;
    constexpr int NV = Simd<T>::NV, LANES = Simd<T>::LANES;
    // Local copies, since compilers must assume that a store changes what is in memory
    PanelRow<T, how, Stored, Word> row(panel, 0);
    const int64_t rating_stride = panel.rating_stride, word_stride = panel.word_stride, lde = to.lde;
    T *E = to.E + c, *column_sums = to.column_sums + c;
    V column[NV], one = V{} + 1;
    keep_in_register(one);  // sums by multiply-adds: adders would be busier than multipliers
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) column[v] = load<V>(column_sums + v * LANES);
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) {
        const V bias = user_bias[r] - V{};
        V sum = sums.rows[r];
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) {
            const V error = row.error(c + v * LANES, e[r][v] + bias);
            const V half = row.half_gradient(c + v * LANES, error);
            store(E + v * LANES, half);
            column[v] += half;
            sum += half * one;
            sums.squares[v] += error * error;
        }
        sums.rows[r] = sum;
        row.advance(rating_stride, word_stride);
        E += lde;
    }
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) store(column_sums + v * LANES, column[v]);
}

// Returns the micro-tiles with an observed rating in ROWS rows from `first` on. Rows beyond the panel's last one read
// the last one again.
template <class T, Missing how, class Stored, class Word, int ROWS>
ALWAYS_INLINE TileMask observed_in_rows(const RatingsPanel<T> &panel, int64_t first) {
    constexpr int NR = Simd<T>::NR, LANES = Simd<T>::LANES;
    PanelRow<T, how, Stored, Word> rows[ROWS];
    for (int r = 0; r < ROWS; ++r) rows[r] = {panel, std::min<int64_t>(first + r, panel.rows - 1)};
    TileMask observed = 0;
    for (int64_t c = 0; c < panel.columns; c += NR) {
        bool any;
        if constexpr (how != Missing::BY_NAN && sizeof(Word) == 1) {
            typename Simd<T>::ByteRow bytes = {};
#pragma GCC unroll 12
            for (const auto &row : rows) {
                const auto words = load<typename Simd<T>::ByteRow>(row.words + c);
                bytes |= how == Missing::BY_CODE ? words ^ MISSING_CODE : words;
            }
            any = any_bit(bytes);
        } else {
            typename Simd<T>::Lanes missing = ~typename Simd<T>::Lanes{};
#pragma GCC unroll 12
            for (const auto &row : rows)
                for (int v = 0; v < NR; v += LANES) missing &= row.missing(c + v);
            any = any_bit(~missing);
        }
        observed |= TileMask(any) << c / NR;
    }
    return observed;
}

// Returns the panel's micro-tiles with an observed rating. Unless ratings are rare, the first row settles them all.
template <class T, Missing how, class Stored, class Word> TileMask observed_tiles(const RatingsPanel<T> &panel) {
    const TileMask observed = observed_in_rows<T, how, Stored, Word, 1>(panel, 0);
    if (observed == first_tiles(panel.columns / Simd<T>::NR)) return observed;
    return observed | observed_in_rows<T, how, Stored, Word, MR - 1>(panel, 1);
}

}  // namespace mf
