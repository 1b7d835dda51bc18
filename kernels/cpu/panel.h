// The inner loops over ratings: errors of a panel of MR users, and which of its micro-tiles have observed ratings.

#pragma once

#include "bitset.h"
#include "dtypes.h"

namespace mf {

enum class Missing { BY_MASK, BY_WEIGHT, BY_NAN, BY_CODE };  // how a missing rating is marked

template <class T> struct RatingsPanel {  // up to MR users x whole micro-tiles of items
    int64_t rows, columns;
    const void *ratings, *words;  // [rows, columns]; words are mask elements, weights or codes
    int64_t rating_stride, word_stride;
    T scale, offset;  // of codes
};

template <class T> struct PanelErrors {
    T *E;  // [rows, columns], leading dimension lde; holds the predictions without biases, then half their gradient
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
};

// Turns predictions into errors, E = E + biases - ratings where observed and 0 elsewhere, for ROWS rows and columns
// begin to end, and adds up their sums and squares. Weights multiply the errors, and once more those stored and summed.
template <class T, Missing how, class Stored, class Word, int ROWS>
ALWAYS_INLINE void row_errors(const RatingsPanel<T> &panel, int64_t first, int64_t begin, int64_t end,
                              const T *user_bias, const T *item_bias, PanelErrors<T> &to) {
    using V = typename Simd<T>::Vector;
    using Lanes = typename Simd<T>::Lanes;
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
            const V difference = load<V>(E[r] + c) + bias[r] + item - rows[r].rating(c);
            V error = (V)((Lanes)difference & ~rows[r].missing(c));
            if constexpr (how == Missing::BY_WEIGHT) error *= rows[r].weight(c);
            V half = error;  // of the gradient of the prediction
            if constexpr (how == Missing::BY_WEIGHT) half *= rows[r].weight(c);
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

// Applies `row_errors` to all rows of a panel.
template <class T, Missing how, class Stored, class Word>
void panel_errors(const RatingsPanel<T> &panel, int64_t begin, int64_t end, const T *user_bias, const T *item_bias,
                  PanelErrors<T> &to) {
    constexpr int ROWS = 3;  // rows that share the loads of a column, with sums that fit in registers
    int64_t r = 0;
    for (; r + ROWS <= panel.rows; r += ROWS)
        row_errors<T, how, Stored, Word, ROWS>(panel, r, begin, end, user_bias, item_bias, to);
    for (; r < panel.rows; ++r)
        row_errors<T, how, Stored, Word, 1>(panel, r, begin, end, user_bias, item_bias, to);
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
