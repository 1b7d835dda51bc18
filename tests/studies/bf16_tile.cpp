// Times micro-tiles of predictions from bfloat16 pairs (vdpbf16ps) against float32 multiply-adds, on one thread, and
// prints their largest errors. For docs/decisions/0033-bfloat16-on-a-cpu.md:
//
//     g++ -O3 -march=native -std=c++17 tests/studies/bf16_tile.cpp -o bf16_tile && ./bf16_tile

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <random>
#include <vector>

constexpr int MR = 12, NR = 32, TILES = 12, TURNS = 20, CALLS = 300;

double cpu_seconds() {
    timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
}

// E = P Q' for one tile. P: [rank, MR]; Q: [rank, NR]; E: [MR, NR]. Words hold one float32, or a pair of bfloat16.
template <int PRODUCTS>
__attribute__((noinline)) void tile(int steps, const std::uint32_t *P, const std::uint32_t *P_low,
                                    const std::uint32_t *Q, const std::uint32_t *Q_low, float *E) {
    __m512 e[MR][2] = {};
    for (int k = 0; k < steps; ++k, P += MR, P_low += MR, Q += NR, Q_low += NR) {
        const __m512i q[2] = {_mm512_loadu_si512(Q), _mm512_loadu_si512(Q + 16)};
        __m512i low[2] = {};
        if (PRODUCTS == 3) low[0] = _mm512_loadu_si512(Q_low), low[1] = _mm512_loadu_si512(Q_low + 16);
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
            for (int v = 0; v < 2; ++v) {
                const __m512i p = _mm512_set1_epi32(int(P[i]));
                if (PRODUCTS == 0) {
                    e[i][v] = _mm512_fmadd_ps(__m512(p), __m512(q[v]), e[i][v]);
                    continue;
                }
                if (PRODUCTS == 3) {
                    e[i][v] = _mm512_dpbf16_ps(e[i][v], __m512bh(p), __m512bh(low[v]));
                    e[i][v] = _mm512_dpbf16_ps(e[i][v], __m512bh(_mm512_set1_epi32(int(P_low[i]))), __m512bh(q[v]));
                }
                e[i][v] = _mm512_dpbf16_ps(e[i][v], __m512bh(p), __m512bh(q[v]));
            }
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
        _mm512_storeu_ps(E + i * NR, e[i][0]);
        _mm512_storeu_ps(E + i * NR + 16, e[i][1]);
    }
}

std::uint32_t bits(float x) {
    std::uint32_t word;
    std::memcpy(&word, &x, sizeof word);
    return word;
}

std::uint32_t rounded(float x) { return (bits(x) + 0x7fff + (bits(x) >> 16 & 1)) >> 16; }

float remainder(float x) {
    const std::uint32_t word = rounded(x) << 16;
    float high;
    std::memcpy(&high, &word, sizeof high);
    return x - high;
}

struct Operand {
    std::vector<std::uint32_t> words, high, low;  // [rank, width]; pairs: [rank / 2, width]

    Operand(const std::vector<float> &values, int rank, int width) {
        for (float x : values) words.push_back(bits(x));
        for (int k = 0; k < rank; k += 2)
            for (int c = 0; c < width; ++c) {
                const float a = values[std::size_t(k * width + c)], b = values[std::size_t((k + 1) * width + c)];
                high.push_back(rounded(a) | rounded(b) << 16);
                low.push_back(rounded(remainder(a)) | rounded(remainder(b)) << 16);
            }
    }
};

int main() {
    std::mt19937 random(0);
    std::uniform_real_distribution<float> uniform(-0.5f, 0.5f);
    for (int rank : {32, 64, 128}) {
        std::vector<float> p(std::size_t(rank * MR)), E(MR * NR * TILES);
        for (float &x : p) x = uniform(random);
        const Operand P(p, rank, MR);
        std::vector<std::vector<float>> q(TILES, std::vector<float>(std::size_t(rank * NR)));
        std::vector<Operand> Q;
        for (auto &values : q) {
            for (float &x : values) x = uniform(random);
            Q.emplace_back(values, rank, NR);
        }
        double seconds[3] = {1e9, 1e9, 1e9}, errors[3] = {};
        const auto run = [&](int which, int t) {
            float *to = &E[std::size_t(t * MR * NR)];
            const Operand &other = Q[std::size_t(t)];
            const std::uint32_t *p = P.words.data(), *q = other.words.data();
            if (which == 0) tile<0>(rank, p, p, q, q, to);
            if (which == 1) tile<3>(rank / 2, P.high.data(), P.low.data(), other.high.data(), other.low.data(), to);
            if (which == 2) tile<1>(rank / 2, P.high.data(), P.low.data(), other.high.data(), other.low.data(), to);
        };
        for (int turn = 0; turn < TURNS; ++turn)
            for (int which = 0; which < 3; ++which) {
                const double start = cpu_seconds();
                for (int call = 0; call < CALLS; ++call)
                    for (int t = 0; t < TILES; ++t) run(which, t);
                seconds[which] = std::min(seconds[which], cpu_seconds() - start);
                for (int t = 0; t < TILES; ++t)
                    for (int at = 0; at < MR * NR; ++at) {
                        double sum = 0, magnitude = 0;
                        for (int k = 0; k < rank; ++k) {
                            const double term = double(p[std::size_t(k * MR + at / NR)]) *
                                                double(q[std::size_t(t)][std::size_t(k * NR + at % NR)]);
                            sum += term, magnitude += std::abs(term);
                        }
                        const double error = std::abs(double(E[std::size_t(t * MR * NR + at)]) - sum) / magnitude;
                        errors[which] = std::max(errors[which], error);
                    }
            }
        const double flops = 2.0 * rank * MR * NR * TILES * CALLS;
        const char *names[] = {"float32", "bf16x3", "one bfloat16 product"};
        for (int which = 0; which < 3; ++which)
            std::printf("rank %3d, %-20s %6.1f GFLOP/s, %.2f x; largest error %.1e of the sum of magnitudes\n", rank,
                        names[which], flops / seconds[which] / 1e9, seconds[0] / seconds[which], errors[which]);
    }
}
