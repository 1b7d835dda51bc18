// The yardstick of the sparse step: one plain pass over compressed rows, rank 32, for AVX2. It returns the squared errors
// and sets the gradients, halved and not regularised. With two threads it starts the second anew in every pass.

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <thread>

using std::int32_t, std::int64_t;

constexpr int RANK = 32, LANES = 8, VECTORS = RANK / LANES;

struct Pass {  // [m + 1], [entries] twice, [m, RANK], [n, RANK], [m], [n], and the gradients of the last four
    const int64_t *rows;
    const int32_t *items;
    const float *ratings, *P, *Q, *user_bias, *item_bias;
    float *dP, *dQ, *d_user_bias, *d_item_bias;
};

static __m256 sum_each(const __m256 *v) {  // lane i of the result is the sum of v[i]
    const __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    const __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
    return _mm256_permute2f128_ps(low, high, 0x20) + _mm256_permute2f128_ps(low, high, 0x31);
}

static double sum(__m256 v) {
    double total = 0;
    for (int lane = 0; lane < LANES; ++lane) total += v[lane];
    return total;
}

static double work(int64_t first, int64_t last, const Pass &pass, float *dQ, float *d_item_bias) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    double sse = 0;
    for (int64_t user = first; user < last; ++user) {
        __m256 p[VECTORS], d_p[VECTORS] = {}, errors = {}, squares = {};
        for (int w = 0; w < VECTORS; ++w) p[w] = _mm256_loadu_ps(pass.P + user * RANK + w * LANES);
        for (int64_t t = pass.rows[user]; t < pass.rows[user + 1]; t += LANES) {
            const int count = int(std::min<int64_t>(LANES, pass.rows[user + 1] - t));
            const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes);
            const __m256i item = _mm256_maskload_epi32(pass.items + t, mask);
            alignas(32) int32_t j[LANES];
            _mm256_store_si256((__m256i *)j, item);
            __m256 v[LANES];
#pragma GCC unroll 8
            for (int i = 0; i < LANES; ++i) {
                const float *q = pass.Q + int64_t(j[i]) * RANK;
                v[i] = p[0] * _mm256_loadu_ps(q);
                for (int w = 1; w < VECTORS; ++w) v[i] = _mm256_fmadd_ps(p[w], _mm256_loadu_ps(q + w * LANES), v[i]);
            }
            __m256 e = sum_each(v) + _mm256_set1_ps(pass.user_bias[user]);
            e += _mm256_i32gather_ps(pass.item_bias, item, 4) - _mm256_maskload_ps(pass.ratings + t, mask);
            e = _mm256_and_ps(e, _mm256_castsi256_ps(mask));
            errors += e;
            squares = _mm256_fmadd_ps(e, e, squares);
            alignas(32) float error[LANES];
            _mm256_store_ps(error, e);
            for (int i = 0; i < count; ++i) {
                const float *q = pass.Q + int64_t(j[i]) * RANK;
                float *d_q = dQ + int64_t(j[i]) * RANK;
                const __m256 x = _mm256_set1_ps(error[i]);
                for (int w = 0; w < VECTORS; ++w) {
                    d_p[w] = _mm256_fmadd_ps(x, _mm256_loadu_ps(q + w * LANES), d_p[w]);
                    _mm256_storeu_ps(d_q + w * LANES, _mm256_fmadd_ps(x, p[w], _mm256_loadu_ps(d_q + w * LANES)));
                }
                d_item_bias[j[i]] += error[i];
            }
        }
        for (int w = 0; w < VECTORS; ++w) _mm256_storeu_ps(pass.dP + user * RANK + w * LANES, d_p[w]);
        pass.d_user_bias[user] = float(sum(errors));
        sse += sum(squares);
    }
    return sse;
}

// scratch: [n, RANK + 1], the second thread's gradients of items.
extern "C" double csr_pass(const Pass *pass, int64_t m, int64_t n, int64_t threads, float *scratch) {
    std::memset(pass->dQ, 0, std::size_t(n * RANK) * sizeof(float));
    std::memset(pass->d_item_bias, 0, std::size_t(n) * sizeof(float));
    if (threads == 1) return work(0, m, *pass, pass->dQ, pass->d_item_bias);
    const int64_t middle = std::lower_bound(pass->rows, pass->rows + m + 1, pass->rows[m] / 2) - pass->rows;
    float *const d_item_bias = scratch + n * RANK;
    double sse = 0;
    std::thread helper([&] {
        std::memset(scratch, 0, std::size_t(n * (RANK + 1)) * sizeof(float));
        sse = work(middle, m, *pass, scratch, d_item_bias);
    });
    const double own = work(0, middle, *pass, pass->dQ, pass->d_item_bias);
    helper.join();
    for (int64_t i = 0; i < n * RANK; ++i) pass->dQ[i] += scratch[i];
    for (int64_t i = 0; i < n; ++i) pass->d_item_bias[i] += d_item_bias[i];
    return own + sse;
}
