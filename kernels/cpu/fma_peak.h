// Measures peak arithmetic: multiply-adds in registers, the upper bound on the rate of any kernel on these vectors.

#pragma once

#include "pool.h"
#include "simd.h"

namespace mf {

// Runs one chain of multiply-adds in each accumulator register, as the micro-kernels do, without touching memory.
template <class T> T multiply_and_add(int64_t rounds) {
    using V = typename Simd<T>::Vector;
    V sums[ACCUMULATORS], factor = V{} + T(0.5);
    keep_in_register(factor);
#pragma GCC unroll 24
    for (int i = 0; i < ACCUMULATORS; ++i) sums[i] = V{} + T(i);
    for (int64_t round = 0; round < rounds; ++round)
#pragma GCC unroll 24
        for (int i = 0; i < ACCUMULATORS; ++i) sums[i] = factor * sums[i] + factor;
#pragma GCC unroll 24
    for (int i = 1; i < ACCUMULATORS; ++i) sums[0] += sums[i];
    return T(sum_lanes<T>(sums[0]));
}

// Runs `multiply_and_add` on all threads at once. Returns the number of floating-point operations.
inline double multiply_and_add_on(int64_t threads, int64_t rounds) {
    const Pool::Lease pool(threads);
    pool.parallel(threads, threads, [&](int64_t, int64_t) {
        volatile float result = multiply_and_add<float>(rounds);  // volatile, so that the loop is not optimised away
        (void)result;
    });
    return 2.0 * ACCUMULATORS * Simd<float>::LANES * double(rounds) * double(threads);
}

}  // namespace mf
