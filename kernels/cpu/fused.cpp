// The fused step on a CPU. It computes what these loops do, from the factors P and Q, the biases bu, bi and mu, the
// ratings R, and their weights W, which are 1 or 0 unless the mask is of a float type:
//
//     for (i = 0; i < m; ++i)
//         for (j = 0; j < n; ++j) {
//             if (W[i][j] == 0) continue;
//             e = bu[i] + bi[j] + mu - R[i][j];
//             for (k = 0; k < rank; ++k) e += P[i][k] * Q[j][k];
//             e *= W[i][j], loss += e * e;
//             e *= W[i][j], dbu[i] += 2 * e, dbi[j] += 2 * e, dmu += 2 * e;
//             for (k = 0; k < rank; ++k) dP[i][k] += 2 * e * Q[j][k], dQ[j][k] += 2 * e * P[i][k];
//         }
//     for (each x in P, Q, bu, bi) loss += reg * x * x, dx += 2 * reg * x;
//
// step.h computes it by matrix products over blocks of errors E, zero where a rating is missing:
//
//     E = W^2 (P Q' + bu + bi' + mu - R),   dP = E Q,   dQ = E' P,   dbu = E 1,   dbi = E' 1

// Sparse ratings are the entries (i, j) of the loops that are observed; sparse_step.h works through these alone.

#include "call.h"
#include "fma_peak.h"
#include "phases.h"
#include "row_check.h"
#include "scratch.h"
#include "sparse_step.h"
#include "step.h"

namespace mf {
namespace {

template <class T> void run(const Call &call, Scratch &scratch) {
    Matrix ratings = call.ratings, mask = call.mask;
    // Swap users and items if that makes the items contiguous, or the longer side where both are contiguous.
    const bool swap = mask.kind != BITS && ratings.row_stride == 1 &&
                      (ratings.column_stride != 1 || call.items.count < call.users.count);
    if (swap) {
        std::swap(ratings.row_stride, ratings.column_stride);
        std::swap(mask.row_stride, mask.column_stride);
    }
    const Parameters &users = swap ? call.items : call.users, &items = swap ? call.users : call.items;
    Step<T>(call, users, items, ratings, mask).run(scratch);
}

thread_local Scratch scratch;

}  // namespace
}  // namespace mf

#define EXPORT extern "C" __attribute__((visibility("default")))

// Runs one step. Returns 0, or 1 if memory runs out.
EXPORT int mf_step(const mf::Call *call) {
    mf::Stopwatch watch;
    try {
        if (call->double_parameters) mf::run<double>(*call, mf::scratch);
        else mf::run<float>(*call, mf::scratch);
    } catch (const std::bad_alloc &) {
        return 1;
    }
    watch.book(mf::STEP);
    return 0;
}

// Runs one step on sparse ratings whose indices are valid and rise. Returns 0, or 1 if memory runs out.
EXPORT int mf_sparse_step(const mf::SparseCall *call) {
    try {
        if (call->call.double_parameters) mf::SparseStep<double>(call->call, call->entries).run(mf::scratch);
        else mf::SparseStep<float>(call->call, call->entries).run(mf::scratch);
    } catch (const std::bad_alloc &) {
        return 1;
    }
    return 0;
}

// Returns 1 if the indices of sparse ratings are valid and rise in every row. Sizes and threads are those of the call.
EXPORT int mf_rows_are_sorted(const mf::Entries *entries, mf::int64_t users, mf::int64_t items,
                              mf::int64_t threads) {
    return mf::rows_are_sorted(*entries, users, items, threads);
}

// Returns 1 if compiled arithmetic follows IEEE 754: no sum is reordered and NaN differs from itself.
// `large` + `small` rounds to `large`.
EXPORT int mf_is_ieee(double large, double small, double nan) {
    return (large + small) - large == 0 && nan != nan;
}

// Runs `rounds` float32 multiply-adds per accumulator on all threads. Returns the number of floating-point operations.
EXPORT double mf_multiply_and_add(mf::int64_t threads, mf::int64_t rounds) {
    return mf::multiply_and_add_on(threads, rounds);
}

// Frees the scratch memory that the calling thread keeps between steps.
EXPORT void mf_release() { mf::scratch.release(); }

#ifdef TIME_PHASES
// Moves the seconds that the calling thread spent in each phase since the last call to `seconds`, [PHASES].
EXPORT void mf_take_phases(double *seconds) {
    for (int phase = 0; phase < mf::PHASES; ++phase) seconds[phase] = std::exchange(mf::phase_seconds[phase], 0.0);
}
#endif
