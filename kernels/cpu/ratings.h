// The ratings and what is missing of them: selects the inner loops for their dtypes and strides.

#pragma once

#include <limits>

#include "panel.h"
#include "phases.h"
#include "reader.h"

namespace mf {

template <class T, int ITEMS> class Ratings {
  public:
    struct Copy {  // of a panel
        alignas(64) char ratings[MR * ITEMS * sizeof(double)], words[MR * ITEMS * sizeof(T)];
    };

    // Without a mask (NO_MASK), NaN or a code marks missing ratings. A code is worth code * scale + offset.
    Ratings(const Matrix &ratings, const Matrix &mask, double scale, double offset)
        : scale_(T(scale)), offset_(T(offset)) {
        const int64_t size = element_size(mask.kind);
        if (ratings.kind == CODES) {
            words_ = {ratings, 1, CACHE_LINE, true, copy_words<std::uint8_t>, 1, MISSING_CODE};
            select<Missing::BY_CODE, T, std::uint8_t>();
        } else if (mask.kind == NO_MASK) {
            select<Missing::BY_NAN, std::uint8_t>(ratings);
        } else if (mask.kind >= FLOAT64_WEIGHTS) {
            const bool in_place = mask.kind == WEIGHTS_LIKE_T && mask.column_stride == 1;
            words_ = {mask, size, CACHE_LINE / size, in_place, weight_decoder(mask.kind), sizeof(T), 0};
            select<Missing::BY_WEIGHT, T>(ratings);
        } else if (mask.kind == int64_t(sizeof(T)) && mask.column_stride == 1) {
            words_ = {mask, size, CACHE_LINE / size, true, copy_words<Integer>, sizeof(Integer), 0};
            select<Missing::BY_MASK, Integer>(ratings);
        } else {
            const bool in_place = mask.kind == 1 && mask.column_stride == 1;
            const int64_t line_columns = CACHE_LINE / size * (mask.kind == BITS ? 32 : 1);
            words_ = {mask, size, line_columns, in_place, mask_decoder(mask.kind), 1, 0};
            select<Missing::BY_MASK, std::uint8_t>(ratings);
        }
    }

    // Reads the panel at a region of whole micro-tiles, or of part of one. Decoded elements go to `copy`, from `column`
    // on. Returns the micro-tiles with an observed rating; if there are none, panel.ratings may not be set.
    TileMask read_panel(const Region &at, RatingsPanel<T> &panel, Copy &copy, int64_t column) const {
        panel = {at.rows, round_up(at.columns, NR), nullptr, nullptr, 0, 0, scale_, offset_};
        TileMask observed = 0;
        if (how_ != Missing::BY_NAN) {
            const auto words = words_.read(at, copy.words, column);
            panel.words = words.data;
            panel.word_stride = words.stride;
            observed = observed_tiles_(panel);
            if (!observed) return 0;
        }
        if (how_ != Missing::BY_CODE) {
            const auto ratings = ratings_.read(at, copy.ratings, column);
            panel.ratings = ratings.data;
            panel.rating_stride = ratings.stride;
        }
        return how_ == Missing::BY_NAN ? observed_tiles_(panel) : observed;
    }

    struct Walk {
        Position here, next;  // of a panel, and of the one that is prefetched while it is computed
        bool prefetching;

        Walk from(int64_t column) const {
            return {{here.i, here.j + column}, {next.i, next.j + column}, prefetching};
        }
    };

    // Computes the errors of a panel's observed micro-tiles.
    void errors(const RatingsPanel<T> &panel, const PanelFactors<T> &factors, TileMask observed, const Walk &walk,
                PanelErrors<T> &to) const {
        panel_errors_(*this, panel, factors, observed, walk, to);
    }

  private:
    static constexpr int NR = Simd<T>::NR;
    static constexpr int64_t AHEAD = 3;  // micro-tiles by which a rating that is read in place is prefetched
    static constexpr int64_t WEIGHTS_LIKE_T = sizeof(T) == 4 ? FLOAT32_WEIGHTS : FLOAT64_WEIGHTS;
    using Integer = typename IntegerLike<T>::type;
    using Reader = MatrixReader<T, ITEMS>;

    Reader ratings_ = {}, words_ = {};  // words: the mask, or the ratings if they are codes
    T scale_, offset_;
    Missing how_;
    TileMask (*observed_tiles_)(const RatingsPanel<T> &);
    void (*panel_errors_)(const Ratings &, const RatingsPanel<T> &, const PanelFactors<T> &, TileMask, const Walk &,
                          PanelErrors<T> &);

    // Returns the bytes of a mask's element, or of a word of mask bits.
    static int64_t element_size(int64_t mask_kind) {
        static constexpr int64_t sizes[] = {4, 8, 4, 2, 2, 1, 1};  // of BITS and the weights
        return mask_kind < BITS ? mask_kind : sizes[mask_kind - BITS];
    }

    static typename Reader::Decode weight_decoder(int64_t kind) {
        static constexpr typename Reader::Decode decoders[] = {
            decode_weights<T, double>,      decode_weights<T, float>,          decode_weights<T, BFloat16Bits>,
            decode_weights<T, Float16Bits>, decode_weights<T, Float8E5M2Bits>, decode_weights<T, Float8E4M3FNBits>};
        return decoders[kind - FLOAT64_WEIGHTS];
    }

    static typename Reader::Decode mask_decoder(int64_t kind) {
        if (kind == BITS) return decode_bits<(NR < 8 ? NR : 8)>;
        switch (kind) {
            case 8: return decode_mask<std::uint64_t>;
            case 4: return decode_mask<std::uint32_t>;
            case 2: return decode_mask<std::uint16_t>;
            default: return decode_mask<std::uint8_t>;
        }
    }

    template <Missing how, class Word> void select(const Matrix &ratings) {
        static constexpr typename Reader::Decode decoders[] = {
            decode_ratings<T, double>,       decode_ratings<T, float>,        decode_ratings<T, BFloat16Bits>,
            decode_ratings<T, Float16Bits>,  decode_ratings<T, std::uint8_t>, decode_ratings<T, std::int8_t>};
        constexpr int NAN_BYTES = 0xff;
        const int64_t size = RATING_BYTES[ratings.kind], line_columns = CACHE_LINE / size;
        if (ratings.kind == FLOAT64 && ratings.column_stride == 1) {  // converted in registers
            ratings_ = {ratings, size, line_columns, true, decode_ratings<double, double>, sizeof(double), NAN_BYTES};
            select<how, double, Word>();
        } else {
            const bool in_place = sizeof(T) == 4 && ratings.kind == FLOAT32 && ratings.column_stride == 1;
            ratings_ = {ratings, size, line_columns, in_place, decoders[ratings.kind], sizeof(T), NAN_BYTES};
            select<how, T, Word>();
        }
    }

    template <Missing how, class Stored, class Word> void select() {
        how_ = how;
        observed_tiles_ = observed_tiles<T, how, Stored, Word>;
        if constexpr (ERRORS_IN_REGISTERS) panel_errors_ = by_tiles<how, Stored, Word>;
        else panel_errors_ = by_rows<how, Stored, Word>;
    }

    struct Lines {
        TileLines words, ratings;

        ALWAYS_INLINE void prefetch(int64_t r) const {
            words.prefetch(r);
            ratings.prefetch(r);
        }

        ALWAYS_INLINE void prefetch() const {
            for (int64_t r = 0; r < MR; ++r) prefetch(r);
        }
    };

    // Returns what to prefetch beside a micro-tile: the words of the next panel, and the ratings `ahead` columns later if
    // they are certain to be read.
    ALWAYS_INLINE Lines lines(const Walk &walk, int64_t j, int64_t ahead, int64_t columns, TileMask observed) const {
        if (!walk.prefetching) return {};
        const int64_t to = j + ahead;
        const bool here = to < columns, certain = how_ == Missing::BY_NAN || contains(observed, (here ? to : j) / NR);
        const Position at = here ? Position{walk.here.i, walk.here.j + to}
                                 : Position{walk.next.i, walk.next.j + to - columns};
        return {words_.lines({walk.next.i, walk.next.j + j}), certain ? ratings_.lines(at) : TileLines()};
    }

    // Turns every micro-tile of predictions into errors while it is in registers.
    template <Missing how, class Stored, class Word>
    static void by_tiles(const Ratings &self, const RatingsPanel<T> &panel, const PanelFactors<T> &factors,
                         TileMask observed, const Walk &walk, PanelErrors<T> &to) {
        Stopwatch watch;
        PanelSums<T> sums;
        const int64_t ahead = self.ratings_.in_place ? std::min(AHEAD * NR, panel.columns) : panel.columns;
        for (int64_t j = 0; j < panel.columns; j += NR) {
            const bool any = contains(observed, j / NR);
            const Lines lines = self.lines(walk, j, ahead, panel.columns, observed);
            if (!any) {
                lines.prefetch();
                continue;
            }
            MicroTile<T> e;
            fill_tile<T>(factors.item_bias + j, e);
            predict_tile<T>(factors.rank, factors.P, factors.ld, factors.Qt + j * factors.ld, to.E + j, to.lde, e,
                            [&](int64_t r) __attribute__((always_inline)) { lines.prefetch(r); });
            tile_errors<T, how, Stored, Word>(panel, factors.user_bias, j, e, sums, to);
        }
        if (!observed) return;
        for (int r = 0; r < MR; ++r) to.row_sums[r] += sum_lanes<T>(sums.rows[r]);
        for (int v = 1; v < Simd<T>::NV; ++v) sums.squares[0] += sums.squares[v];
        to.squares += sum_lanes<T>(sums.squares[0]);
        watch.book(PREDICTIONS);
    }

    // Stores the predictions of the panel, and then turns them into errors row by row.
    template <Missing how, class Stored, class Word>
    static void by_rows(const Ratings &self, const RatingsPanel<T> &panel, const PanelFactors<T> &factors,
                        TileMask observed, const Walk &walk, PanelErrors<T> &to) {
        Stopwatch watch;
        for (int64_t j = 0; j < panel.columns; j += NR) {
            const bool any = contains(observed, j / NR);
            self.lines(walk, j, panel.columns, panel.columns, observed).prefetch();
            if (!any) continue;
            MicroTile<T> e;
            clear_tile<T>(e);
            predict_tile<T>(factors.rank, factors.P, factors.ld, factors.Qt + j * factors.ld, to.E + j, to.lde, e,
                            [](int64_t) {});
            store_tile<T>(to.E + j, to.lde, e);
        }
        watch.book(PREDICTIONS);
        for_each_run(observed, NR, panel.columns, [&](int64_t begin, int64_t length) {
            constexpr int ROWS = 3;  // rows that share the loads of a column, with sums that fit in registers
            const int64_t end = begin + length;
            int64_t r = 0;
            for (; r + ROWS <= panel.rows; r += ROWS)
                row_errors<T, how, Stored, Word, ROWS>(panel, r, begin, end, factors.user_bias, factors.item_bias, to);
            for (; r < panel.rows; ++r)
                row_errors<T, how, Stored, Word, 1>(panel, r, begin, end, factors.user_bias, factors.item_bias, to);
        });
        watch.book(ERRORS);
    }

};

}  // namespace mf
