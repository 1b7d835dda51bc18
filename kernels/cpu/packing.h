// Users or items: packed for the units that read them, and their gradients put together from what the units wrote.

#pragma once

#include <algorithm>

#include "simd.h"

namespace mf {

struct Side {  // as the caller has it
    int64_t count;
    const void *factors;  // [count, rank]
    int64_t row_stride, column_stride;
    const void *bias;  // [count]
    int64_t bias_stride;
    void *d_factors, *d_bias;  // contiguous
};

// The sum of the squares of numbers in float64 throughout, where they are whole groups of CHAINS vectors.
template <class T> double sum_of_squares(int64_t count, const T *values) {
    using Doubles = typename Simd<double>::Vector;
    Doubles squares[CHAINS] = {};
    for (const T *at = values; at < values + count;)
        for (int chain = 0; chain < CHAINS; ++chain, at += Simd<double>::LANES) {
            const Doubles numbers = load_doubles(at);
            squares[chain] += numbers * numbers;
        }
    return sum_lanes<double>((squares[0] + squares[1]) + (squares[2] + squares[3]));
}

// A side of the matrix, cut into ranges of whole cells.
template <class T> class Axis {
    static constexpr int LANES = Simd<T>::LANES;
    static constexpr int64_t PIECE = 16;  // of a sum of squares, one after the other
    using V = typename Simd<T>::Vector;

  public:
    Side given;
    int64_t rank, ld;              // ld: from row to row, of a multiple of LANES, zeros behind the rank
    int64_t cell, padded, ranges;  // rows of a cell, of all cells; units along this side
    T *d_factors;                  // partial, one for each unit along the other side: [.., padded, ld]
    double *d_bias;                // [.., padded]

    int64_t begin(int64_t range) const { return begin(range, ranges); }
    int64_t begin(int64_t range, int64_t of) const { return range * (padded / cell) / of * cell; }
    int64_t end(int64_t range) const { return std::min(begin(range + 1), given.count); }
    int64_t length(int64_t range) const { return end(range) - begin(range); }
    int64_t longest() const { return ceil_div(padded / cell, ranges) * cell; }

    void clear(int64_t partial, int64_t range) const {
        const int64_t at = partial * padded + begin(range), rows = begin(range + 1) - begin(range);
        std::fill_n(d_factors + at * ld, rows * ld, T(0));
        std::fill_n(d_bias + at, rows, 0.0);
    }

    // Copies rows and adds `extra` to their biases; rows beyond the last one are zeros.
    // factors: [.., ld]; packed_bias: [..].
    void pack(int64_t begin, int64_t end, T extra, T *factors, T *packed_bias) const {
        const int64_t there = std::min(end, given.count);
        const T *from = static_cast<const T *>(given.factors) + begin * given.row_stride;
        for (int64_t i = begin; i < there; ++i, from += given.row_stride, factors += ld) {
            copy_row(from, factors);
            *packed_bias++ = bias(i) + extra;
        }
        std::fill_n(factors, (end - there) * ld, T(0));
        std::fill_n(packed_bias, end - there, extra);
    }

    // Of a range, whose factors are as `pack` left them: the squares of factors and biases, summed in float64.
    double squared_norm(int64_t range, const T *factors) const {
        return sum_of_squares((begin(range + 1) - begin(range)) * ld, factors) +
               bias_squares(begin(range), end(range));
    }

    // Of a task's share of the rows: sums the partial gradients in a fixed order, regularises and doubles.
    // Returns the sum of the bias partials.
    double finish(int64_t task, int64_t tasks, int64_t partials, double reg) const {
        double bias_sum = 0;
        for (int64_t i = begin(task, tasks), end = std::min(begin(task + 1, tasks), given.count); i < end; ++i) {
            const T *row = static_cast<const T *>(given.factors) + i * given.row_stride, *d_row = d_factors + i * ld;
            T *to = static_cast<T *>(given.d_factors) + i * rank;
            const auto gradient = [&](int64_t k, auto factor) {
                auto sum = T(reg) * factor;
                for (int64_t partial = 0; partial < partials; ++partial)
                    sum += load<decltype(factor)>(d_row + partial * padded * ld + k);
                store(to + k, sum + sum);
            };
            if (rank >= LANES) for_vectors([&](int64_t k) { gradient(k, factors_at(row, k)); });
            else for (int64_t k = 0; k < rank; ++k) gradient(k, row[k * given.column_stride]);
            double sum = 0;
            for (int64_t partial = 0; partial < partials; ++partial) sum += d_bias[partial * padded + i];
            static_cast<T *>(given.d_bias)[i] = T(2 * (sum + reg * double(bias(i))));
            bias_sum += sum;
        }
        return bias_sum;
    }

  private:
    T bias(int64_t i) const { return static_cast<const T *>(given.bias)[i * given.bias_stride]; }

    double bias_squares(int64_t begin, int64_t end) const {  // by halves: a long sum loses less
        const int64_t middle = begin + (end - begin) / 2;
        if (end - begin > PIECE) return bias_squares(begin, middle) + bias_squares(middle, end);
        double sum = 0;
        for (int64_t i = begin; i < end; ++i) sum += double(bias(i)) * double(bias(i));
        return sum;
    }

    V factors_at(const T *row, int64_t k) const {  // a vector of them
        if (given.column_stride == 1) return load<V>(row + k);
        T factors[LANES];
        for (int lane = 0; lane < LANES; ++lane) factors[lane] = row[(k + lane) * given.column_stride];
        return load<V>(factors);
    }

    void copy_row(const T *from, T *row) const {
        for (int64_t k = rank / LANES * LANES; k < ld; k += LANES) store(row + k, V{});
        if (rank >= LANES) for_vectors([&](int64_t k) { store(row + k, factors_at(from, k)); });
        else for (int64_t k = 0; k < rank; ++k) row[k] = from[k * given.column_stride];
    }

    // visit(k) for the vectors of a row of `rank` numbers, at least LANES of them: the last may overlap the one before.
    template <class Visit> void for_vectors(Visit visit) const {
        for (int64_t k = 0; k < rank; k += LANES) visit(std::min(k, rank - LANES));
    }
};

}  // namespace mf
