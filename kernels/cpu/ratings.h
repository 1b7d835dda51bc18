// Ratings and masks of any dtype and strides, read one strip of a block at a time: in place where rows are contiguous
// and the types are among those that the inner loop converts in registers, else as a decoded copy in L1.

#pragma once

#include <limits>

#include "dtypes.h"
#include "bitset.h"

namespace mf {

enum class Missing { BY_MASK, BY_NAN, BY_CODE };  // how a strip says so

template <class T> struct Strip {  // MR users or fewer x whole register tiles of items
    int64_t rows, columns;
    const void *ratings, *words;  // [rows, columns]; words: mask or codes
    int64_t rating_stride, word_stride;
    T scale, offset;                         // of codes
    typename IntegerLike<T>::type mask_bits;  // that say 'observed', in words as wide as T
};

template <class T> struct StripErrors {  // where they and their sums go
    T *E;            // [rows, columns], rows lde apart; holds the predictions without biases
    int64_t lde;
    T *column_sums;  // added to
    double row_sums[MR], squares;  // added to
};

// A row of a strip in vectors. Stored: T, or what converts to it in a register; Word: a byte, or an integer like T.
template <class T, Missing how, class Stored, class Word> struct Row {
    using V = typename Simd<T>::Vector;
    using Lanes = typename Simd<T>::Lanes;

    const Stored *ratings;
    const Word *words;
    V scale, offset;
    Lanes mask_bits;

    Row() = default;
    ALWAYS_INLINE Row(const Strip<T> &strip, int64_t r)
        : ratings(static_cast<const Stored *>(strip.ratings) + r * strip.rating_stride),
          words(static_cast<const Word *>(strip.words) + r * strip.word_stride), scale(V{} + strip.scale),
          offset(V{} + strip.offset), mask_bits(Lanes{} + strip.mask_bits) {}

    ALWAYS_INLINE V rating(int64_t c) const {
        if constexpr (how == Missing::BY_CODE) return small_to_float<T>(widen<T>(words + c)) * scale + offset;
        else return load_as<T>(ratings + c);
    }

    ALWAYS_INLINE Lanes missing(int64_t c) const {
        if constexpr (how == Missing::BY_NAN) return rating(c) != rating(c);
        else if constexpr (how == Missing::BY_CODE) return widen<T>(words + c) == MISSING_CODE;
        else if constexpr (sizeof(Word) == 1) return widen<T>(words + c) == 0;
        else return (load<Lanes>(words + c) & mask_bits) == 0;
    }
};

// E = E + biases - ratings where observed, else 0, for ROWS rows and the columns from begin to end, and the sums.
template <class T, Missing how, class Stored, class Word, int ROWS>
ALWAYS_INLINE void row_errors(const Strip<T> &strip, int64_t first, int64_t begin, int64_t end, const T *user_bias,
                              const T *item_bias, StripErrors<T> &to) {
    using V = typename Simd<T>::Vector;
    using Lanes = typename Simd<T>::Lanes;
    Row<T, how, Stored, Word> rows[ROWS];
    T *E[ROWS];
    V bias[ROWS], sums[ROWS] = {}, squares[ROWS] = {}, one = V{} + 1;
    keep_in_register(one);  // one sum by multiplying: the adders have more to do than the multipliers
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) {
        rows[r] = {strip, first + r};
        E[r] = to.E + (first + r) * to.lde;
        bias[r] = V{} + user_bias[first + r];
    }
    for (int64_t c = begin; c < end; c += Simd<T>::LANES) {
        V column = load<V>(to.column_sums + c);
        const V own = load<V>(item_bias + c);
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; ++r) {
            const V difference = load<V>(E[r] + c) + bias[r] + own - rows[r].rating(c);
            const V error = (V)((Lanes)difference & ~rows[r].missing(c));
            store(E[r] + c, error);
            column += error;
            sums[r] += error * one;
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

// The same for all rows.
template <class T, Missing how, class Stored, class Word>
void strip_errors(const Strip<T> &strip, int64_t begin, int64_t end, const T *user_bias, const T *item_bias,
                  StripErrors<T> &to) {
    constexpr int ROWS = 3;  // together: they share the loads of a column, and their sums fit into registers
    int64_t r = 0;
    for (; r + ROWS <= strip.rows; r += ROWS)
        row_errors<T, how, Stored, Word, ROWS>(strip, r, begin, end, user_bias, item_bias, to);
    for (; r < strip.rows; ++r)
        row_errors<T, how, Stored, Word, 1>(strip, r, begin, end, user_bias, item_bias, to);
}

// The tiles with an observed rating in ROWS rows of a strip, from `first` on; its last row stands for any beyond.
template <class T, Missing how, class Stored, class Word, int ROWS>
ALWAYS_INLINE TileMask seen_in(const Strip<T> &strip, int64_t first) {
    constexpr int NR = Simd<T>::NR, LANES = Simd<T>::LANES;
    Row<T, how, Stored, Word> rows[ROWS];
    for (int r = 0; r < ROWS; ++r) rows[r] = {strip, std::min<int64_t>(first + r, strip.rows - 1)};
    TileMask seen = 0;
    for (int64_t c = 0; c < strip.columns; c += NR) {
        bool here;
        if constexpr (how != Missing::BY_NAN && sizeof(Word) == 1) {
            typename Simd<T>::ByteRow bytes = {};
#pragma GCC unroll 12
            for (const auto &row : rows) {
                const auto words = load<typename Simd<T>::ByteRow>(row.words + c);
                bytes |= how == Missing::BY_CODE ? words ^ MISSING_CODE : words;
            }
            here = any_bit(bytes);
        } else {
            typename Simd<T>::Lanes missing = ~typename Simd<T>::Lanes{};
#pragma GCC unroll 12
            for (const auto &row : rows)
                for (int v = 0; v < NR; v += LANES) missing &= row.missing(c + v);
            here = any_bit(~missing);
        }
        seen |= TileMask(here) << c / NR;
    }
    return seen;
}

// The strip's register tiles with an observed rating. The first row shows them all unless ratings are rare.
template <class T, Missing how, class Stored, class Word> TileMask strip_seen(const Strip<T> &strip) {
    const TileMask seen = seen_in<T, how, Stored, Word, 1>(strip, 0);
    if (seen == first_tiles(strip.columns / Simd<T>::NR)) return seen;
    return seen | seen_in<T, how, Stored, Word, MR - 1>(strip, 1);
}

template <class T, int ITEMS> class Ratings {
  public:
    struct Copy {
        alignas(64) char ratings[MR * ITEMS * sizeof(double)], words[MR * ITEMS * sizeof(T)];
    };

    // mask: of no kind where the ratings say what is missing, as NaN or as codes.
    Ratings(const Matrix &ratings, const Matrix &mask, double scale, double offset)
        : ratings_(ratings), words_(ratings.kind == CODES ? ratings : mask), scale_(T(scale)), offset_(T(offset)) {
        static constexpr int sizes[] = {8, 4, 2, 2, 1, 1, 1};
        const int64_t size = sizes[ratings.kind], word_size = mask.kind & ~SIGNED_ZERO;
        if (ratings.kind == CODES) {
            words_line_ = line_of(1);
            use<Missing::BY_CODE, T, std::uint8_t>(true, copy_words<std::uint8_t>);
            return;
        }
        ratings_line_ = line_of(size);
        if (mask.kind == NO_MASK) {
            use_ratings<Missing::BY_NAN, std::uint8_t>(true, nullptr);
            return;
        }
        words_line_ = mask.kind == BITS ? Line{4, 512} : line_of(word_size);
        if (word_size == sizeof(T) && mask.column_stride == 1)
            use_ratings<Missing::BY_MASK, Integer>(true, copy_words<Integer>);
        else
            use_ratings<Missing::BY_MASK, std::uint8_t>(mask.kind == 1 && mask.column_stride == 1,
                                                        mask.kind == BITS ? decode_bits<(NR < 8 ? NR : 8)>
                                                        : word_size == 8  ? decode_mask<std::uint64_t>
                                                        : word_size == 4  ? decode_mask<std::uint32_t>
                                                        : word_size == 2  ? decode_mask<std::uint16_t>
                                                                          : decode_mask<std::uint8_t>);
    }

    // The strip of a region of whole register tiles, or of less than one, which gets columns without any rating. What
    // has to be decoded goes to the copy, from `column` on. Returns the tiles with an observed rating; without any, the
    // strip's ratings are not there.
    TileMask strip(const Region &at, Strip<T> &strip, Copy &copy, int64_t column) const {
        const Integer all = Integer(-1), magnitude = std::numeric_limits<Integer>::max();
        strip = {at.rows, round_up(at.columns, NR), nullptr, nullptr, 0, 0, scale_, offset_,
                 words_.kind & SIGNED_ZERO ? magnitude : all};
        TileMask seen = 0;
        if (how_ != Missing::BY_NAN) {
            const Rows words = read(words_, words_line_, words_as_, at, copy.words, column);
            strip.words = words.data;
            strip.word_stride = words.stride;
            seen = seen_(strip);
            if (!seen) return 0;
        }
        if (how_ != Missing::BY_CODE) {
            const Rows ratings = read(ratings_, ratings_line_, ratings_as_, at, copy.ratings, column);
            strip.ratings = ratings.data;
            strip.rating_stride = ratings.stride;
        }
        return how_ == Missing::BY_NAN ? seen_(strip) : seen;
    }

    void errors(const Strip<T> &strip, int64_t begin, int64_t end, const T *user_bias, const T *item_bias,
                StripErrors<T> &to) const {
        errors_(strip, begin, end, user_bias, item_bias, to);
    }

    bool by_nan() const { return how_ == Missing::BY_NAN; }

    // The register tile at (i, j). Inlined by force: GCC drops the call of a function that does nothing else.
    ALWAYS_INLINE void prefetch_ratings(int64_t i, int64_t j) const {
        if (ratings_line_.size) prefetch(ratings_, ratings_line_, i, j);
    }

    ALWAYS_INLINE void prefetch_words(int64_t i, int64_t j) const {
        if (words_line_.size) prefetch(words_, words_line_, i, j);
    }

  private:
    static constexpr int NR = Simd<T>::NR;
    using Integer = typename IntegerLike<T>::type;
    using Decode = void (*)(const Matrix &, const Region &, void *, int64_t);

    struct Line {
        int64_t size, columns;  // bytes of an element, or of a word of bits; columns of a cache line
    };

    struct Reading {  // how the inner loop gets at a matrix
        bool in_place = false;
        Decode decode = nullptr;
        std::size_t element = 0;  // bytes, as it reads them
        int missing = 0;          // every byte of a place that is not there
    };

    struct Rows {
        const void *data;
        int64_t stride;
    };

    Matrix ratings_, words_;
    T scale_, offset_;
    Missing how_;
    Line ratings_line_ = {0, 1}, words_line_ = {0, 1};  // no size: there are none
    Reading ratings_as_, words_as_;
    TileMask (*seen_)(const Strip<T> &) = nullptr;
    void (*errors_)(const Strip<T> &, int64_t, int64_t, const T *, const T *, StripErrors<T> &) = nullptr;

    static Line line_of(int64_t size) { return {size, 64 / size}; }

    template <Missing how, class Word> void use_ratings(bool words_in_place, Decode decode_words) {
        static constexpr Decode decoders[] = {decode_ratings<T, double>,       decode_ratings<T, float>,
                                              decode_ratings<T, BFloat16Bits>, decode_ratings<T, Float16Bits>,
                                              decode_ratings<T, std::uint8_t>, decode_ratings<T, std::int8_t>};
        ratings_as_ = {ratings_.kind == (sizeof(T) == 8 ? FLOAT64 : FLOAT32) && ratings_.column_stride == 1,
                       decoders[ratings_.kind], sizeof(T), 0xff};  // NaN
        if (ratings_.kind == FLOAT64 && ratings_.column_stride == 1) {
            ratings_as_ = {true, decode_ratings<double, double>, sizeof(double), 0xff};
            use<how, double, Word>(words_in_place, decode_words);
        } else {
            use<how, T, Word>(words_in_place, decode_words);
        }
    }

    template <Missing how, class Stored, class Word> void use(bool words_in_place, Decode decode_words) {
        how_ = how;
        words_as_ = {words_in_place, decode_words, sizeof(Word), how == Missing::BY_CODE ? MISSING_CODE : 0};
        seen_ = strip_seen<T, how, Stored, Word>;
        errors_ = strip_errors<T, how, Stored, Word>;
    }

    // The rows of a region: in place, or in the copy, completed to a whole register tile.
    static Rows read(const Matrix &matrix, const Line &line, const Reading &as, const Region &at, char *copy,
                     int64_t column) {
        const bool whole = at.columns % NR == 0;
        if (whole && as.in_place) return {address(matrix, line.size, at.i, at.j), matrix.row_stride};
        const auto pitch = std::size_t(ITEMS) * as.element;
        copy += std::size_t(column) * as.element;
        for (int r = 0; !whole && r < MR; ++r) std::memset(copy + std::size_t(r) * pitch, as.missing, NR * as.element);
        as.decode(matrix, at, copy, ITEMS);
        return {copy, ITEMS};
    }

    static const char *address(const Matrix &matrix, int64_t size, int64_t i, int64_t j) {
        return mf::address<char>({matrix.data, matrix.row_stride * size, matrix.column_stride * size, 0}, i, j);
    }

    // The cache lines that begin in the register tile at (i, j).
    static ALWAYS_INLINE void prefetch(const Matrix &matrix, const Line &line, int64_t i, int64_t j) {
        if ((j & (line.columns - 1)) >= NR) return;
        const char *start = address(matrix, line.size, i, line.columns == 512 ? j / 32 : j);
        for (int64_t column = 0; column < NR; column += line.columns, start += 64)
            for (int r = 0; r < MR; ++r)  // each is read once: not worth a place in L2
                __builtin_prefetch(start + r * matrix.row_stride * line.size, 0, 0);
    }
};

}  // namespace mf
