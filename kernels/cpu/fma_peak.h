// The rate of multiplying and adding that no kernel passes on the vectors which this one uses.

#pragma once

#include "pool.h"
#include "simd.h"

// Multiplies and adds in as many registers as the products do, from no memory.
template <class T> T multiply_and_add(int64_t rounds) {
    using V = typename Simd<T>::Vector;
    V sums[ACCUMULATORS], factor = V{} + T(0.5);
    keep(factor);
#pragma GCC unroll 24
    for (int i = 0; i < ACCUMULATORS; ++i) sums[i] = V{} + T(i);
    for (int64_t round = 0; round < rounds; ++round)
#pragma GCC unroll 24
        for (int i = 0; i < ACCUMULATORS; ++i) sums[i] = factor * sums[i] + factor;
#pragma GCC unroll 24
    for (int i = 1; i < ACCUMULATORS; ++i) sums[0] += sums[i];
    return T(sum_lanes<T>(sums[0]));
}

// On all threads at once; returns how many operations that were.
inline double multiply_and_add_on(int64_t threads, int64_t rounds) {
    const Pool::Lease pool(threads);
    pool.parallel(threads, threads, [&](int64_t, int64_t) {
        volatile float kept = multiply_and_add<float>(rounds);
        (void)kept;
    });
    return 2.0 * ACCUMULATORS * Simd<float>::LANES * double(rounds) * double(threads);
}
