// Packing of user and item parameters for the micro-kernels, and reduction of their partial gradients.

#pragma once

#include <algorithm>

#include "partition.h"
#include "simd.h"

namespace mf {

struct Parameters {  // of users or of items, as the caller passes them
    int64_t count;
    const void *factors;  // [count, rank]
    int64_t row_stride, column_stride;
    const void *bias;  // [count]
    int64_t bias_stride;
    void *d_factors, *d_bias;  // gradients, contiguous
};

template <class T> struct PackedRange {  // one range of a side, as a thread reads it
    int64_t range, first;  // -1 if nothing is packed; the range's first user or item
    int64_t ld;
    T *buffer, *bias;  // [rows, ld], [rows]
    const T *factors;  // [rows, ld]: the buffer, or the caller's if they need no packing

    const T *factors_of(int64_t i) const { return factors + (i - first) * ld; }
    const T *bias_of(int64_t i) const { return bias + (i - first); }
};

// A sum of squares, computed in float64. Terms are added up in chains, and these now and then to a total with compensation
// (Kahan), since a long chain of equal terms would round each time in the same direction.
class SquareSum {
    using Doubles = typename Simd<double>::Vector;
    static constexpr int LANES = Simd<double>::LANES;
    static constexpr int64_t LONGEST = 64 * CHAINS * LANES;  // terms in the chains, but for one call's rest

    Doubles chains_[CHAINS] = {}, total_ = {}, excess_ = {};  // excess_: what rounding added to the total too much
    double single_ = 0;  // of values that came one by one
    int64_t terms_ = 0;  // in the chains; each single value counts as many as one step of all chains

    template <class T> void add_vector(int chain, const T *values) {
        const Doubles numbers = load_doubles(values);
        chains_[chain] += numbers * numbers;
    }

    void drain() {
        const Doubles chains = (chains_[0] + chains_[1]) + (chains_[2] + chains_[3]);
        const Doubles term = chains + Doubles{single_} - excess_, sum = total_ + term;
        excess_ = (sum - total_) - term;
        total_ = sum;
        std::fill_n(chains_, CHAINS, Doubles{});
        single_ = 0;
        terms_ = 0;
    }

  public:
    // Adds the squares of `count` values, a multiple of LANES.
    template <class T> void add(int64_t count, const T *values) {
        for (int64_t i = 0, end; i < count; i = end) {
            end = std::min(count, i + LONGEST);
            terms_ += end - i;
            for (; i + CHAINS * LANES <= end; i += CHAINS * LANES)
                for (int chain = 0; chain < CHAINS; ++chain) add_vector(chain, values + i + chain * LANES);
            for (; i < end; i += LANES) add_vector(0, values + i);
            if (terms_ >= LONGEST) drain();
        }
    }

    // Adds the square of one value.
    void add(double value) {
        single_ += value * value;
        if ((terms_ += CHAINS * LANES) >= LONGEST) drain();
    }

    double total() {
        drain();
        return sum_lanes<double>(total_);
    }
};

// One side of the matrix, users or items: its parameters and its partial gradients.
template <class T> class Side : public Partition {
    static constexpr int LANES = Simd<T>::LANES;
    static constexpr int64_t PAIRWISE_BASE = 16;  // squares added one by one at the leaves of a pairwise sum
    using V = typename Simd<T>::Vector;

  public:
    T *d_factors = nullptr;    // partial gradients, one copy per range of the other side: [copies, padded, ld]
    double *d_bias = nullptr;  // [copies, padded]

    // ld: distance between packed rows, a multiple of LANES and at least the rank; zeros fill the rest of a row.
    Side(const Parameters &parameters, int64_t cell, int64_t rank, int64_t ld)
        : Partition(parameters.count, cell), parameters_(parameters), rank_(rank), ld_(ld) {}

    // Sets one range of one copy of the partial gradients to zero.
    void clear(int64_t copy, int64_t range) const {
        const int64_t first = copy * padded + begin(range), rows = padded_length(range);
        std::fill_n(d_factors + first * ld_, rows * ld_, T(0));
        std::fill_n(d_bias + first, rows, 0.0);
    }

    // Packs a range unless `packed` already holds it, and adds `extra` to its biases. Padding rows get zero factors.
    // Returns whether it packed. Factors that need neither packing nor padding are read in place.
    bool pack(int64_t range, T extra, PackedRange<T> &packed) const {
        if (packed.range == range) return false;
        packed.range = range;
        packed.first = begin(range);
        const int64_t padding = padded_length(range) - length(range);
        const T *const in_place = padding ? nullptr : factors_in_place();
        if (in_place) {
            packed.factors = in_place + packed.first * ld_;
        } else {
            std::fill_n(pack_factors(packed.first, end(range), packed.buffer), padding * ld_, T(0));
            packed.factors = packed.buffer;
        }
        std::fill_n(pack_biases(packed.first, end(range), extra, packed.bias), padding, extra);
        return true;
    }

    // Packs the factors of rows `first` to `last`, and returns where the next row would go.
    T *pack_factors(int64_t first, int64_t last, T *to) const {
        for (int64_t i = first; i < last; ++i, to += ld_) load_row(i, to);
        return to;
    }

    // Packs the biases of rows `first` to `last`, each with `extra` added, and returns where the next one would go.
    T *pack_biases(int64_t first, int64_t last, T extra, T *to) const {
        for (int64_t i = first; i < last; ++i) *to++ = bias(i) + extra;
        return to;
    }

    // Returns the caller's factors if they are laid out as packed ones are, else nullptr.
    const T *factors_in_place() const {
        const bool packed = rank_ == ld_ && parameters_.row_stride == ld_ && parameters_.column_stride == 1;
        return packed ? static_cast<const T *>(parameters_.factors) : nullptr;
    }

    // Returns the sum of the squares of a packed range's factors and biases, computed in float64.
    double squared_norm(const PackedRange<T> &packed) const {
        return squared_norm(packed.first, end(packed.range), packed.factors);
    }

    // Returns the same of rows `first` to `last`, whose packed factors begin at `factors`.
    double squared_norm(int64_t first, int64_t last, const T *factors) const {
        SquareSum squares;
        squares.add((last - first) * ld_, factors);
        return squares.total() + bias_squares(first, last);
    }

    // Computes the final gradients of share `part` of `parts`: adds up the copies of the partial gradients in a fixed
    // order, adds the regulariser, and doubles. Returns the sum of the partial bias gradients.
    double reduce(int64_t part, int64_t parts, int64_t copies, double reg) const {
        return reduce_rows(begin(part, parts), end(part, parts), copies, reg);
    }

    // Does so for rows `first` to `last`.
    double reduce_rows(int64_t first, int64_t last, int64_t copies, double reg) const {
        double bias_sum = 0;
        for (int64_t i = first; i < last; ++i) {
            const T *row = static_cast<const T *>(parameters_.factors) + i * parameters_.row_stride;
            const T *d_row = d_factors + i * ld_;
            T *to = static_cast<T *>(parameters_.d_factors) + i * rank_;
            const auto reduce_at = [&](int64_t k, auto factor) {
                auto sum = T(reg) * factor;
                for (int64_t copy = 0; copy < copies; ++copy)
                    sum += load<decltype(factor)>(d_row + copy * padded * ld_ + k);
                store(to + k, sum + sum);
            };
            if (rank_ >= LANES) for_each_vector([&](int64_t k) { reduce_at(k, load_factors(row, k)); });
            else for (int64_t k = 0; k < rank_; ++k) reduce_at(k, row[k * parameters_.column_stride]);
            double sum = 0;
            for (int64_t copy = 0; copy < copies; ++copy) sum += d_bias[copy * padded + i];
            static_cast<T *>(parameters_.d_bias)[i] = T(2 * (sum + reg * double(bias(i))));
            bias_sum += sum;
        }
        return bias_sum;
    }

    // Copies the factors of row i to `to`, [ld], and pads them with zeros.
    void load_row(int64_t i, T *to) const {
        pack_row(static_cast<const T *>(parameters_.factors) + i * parameters_.row_stride, to);
    }

    T bias(int64_t i) const { return static_cast<const T *>(parameters_.bias)[i * parameters_.bias_stride]; }

    // Returns where the caller wants the gradient of row i's factors, [rank].
    T *gradient_of(int64_t i) const { return static_cast<T *>(parameters_.d_factors) + i * rank_; }

    // Completes the gradients of row i, from halves that lack the regulariser. `factors` and `half` are padded.
    void store_gradient(int64_t i, const T *half, const T *factors, double half_bias, double reg) const {
        T *const to = gradient_of(i);
        const auto store_at = [&](int64_t k, auto factor) {
            const auto sum = load<decltype(factor)>(half + k) + T(reg) * factor;
            store(to + k, sum + sum);
        };
        if (rank_ >= LANES) for_each_vector([&](int64_t k) { store_at(k, load<V>(factors + k)); });
        else for (int64_t k = 0; k < rank_; ++k) store_at(k, factors[k]);
        static_cast<T *>(parameters_.d_bias)[i] = T(2 * (half_bias + reg * double(bias(i))));
    }

  private:
    Parameters parameters_;
    int64_t rank_, ld_;

    double bias_squares(int64_t begin, int64_t end) const {  // a pairwise sum, which bounds rounding errors
        const int64_t middle = begin + (end - begin) / 2;
        if (end - begin > PAIRWISE_BASE) return bias_squares(begin, middle) + bias_squares(middle, end);
        double sum = 0;
        for (int64_t i = begin; i < end; ++i) sum += double(bias(i)) * double(bias(i));
        return sum;
    }

    V load_factors(const T *row, int64_t k) const {
        if (parameters_.column_stride == 1) return load<V>(row + k);
        T factors[LANES];
        for (int lane = 0; lane < LANES; ++lane) factors[lane] = row[(k + lane) * parameters_.column_stride];
        return load<V>(factors);
    }

    void pack_row(const T *from, T *to) const {
        for (int64_t k = rank_ / LANES * LANES; k < ld_; k += LANES) store(to + k, V{});
        if (rank_ >= LANES) for_each_vector([&](int64_t k) { store(to + k, load_factors(from, k)); });
        else for (int64_t k = 0; k < rank_; ++k) to[k] = from[k * parameters_.column_stride];
    }

    // Calls visit(k) for the vectors of a row of at least LANES factors. The last one may overlap the one before.
    template <class Visit> void for_each_vector(Visit visit) const {
        for (int64_t k = 0; k < rank_; k += LANES) visit(std::min(k, rank_ - LANES));
    }
};

}  // namespace mf
