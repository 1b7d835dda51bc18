// Compares the CPU kernel with plain loops, for compilers and instruction sets whose library cannot be loaded into this
// machine's Python. Prints the number of cases and the outputs that are wrong.

#include "../../../kernels/cpu/fused.cpp"

#include <cstdio>
#include <random>
#include <vector>

using namespace mf;

enum Marks { MASK, NANS, WEIGHTS, ENTRIES };  // of missing ratings; ENTRIES: sparse ratings, which lack them

template <class T> struct Problem {
    int64_t m, n, rank;
    std::vector<T> P, Q, bu, bi, R, mu, weights;
    std::vector<std::uint8_t> mask;

    Problem(int64_t m, int64_t n, int64_t rank, Marks marks)
        : m(m), n(n), rank(rank), P(m * rank), Q(n * rank), bu(m), bi(n), R(m * n), mu(1), weights(m * n, T(1)),
          mask(m * n) {
        std::mt19937 random(unsigned(m + 7 * n + 31 * rank));
        std::normal_distribution<double> normal;
        for (auto *values : {&P, &Q, &bu, &bi, &R, &mu})
            for (T &value : *values) value = T(normal(random));
        for (auto &observed : mask) observed = random() % 10 < 6;
        for (int64_t at = 0; at < m * n; ++at) {
            if (marks == WEIGHTS) weights[at] = mask[at] ? T(normal(random)) : T(0);
            if (marks != MASK && !mask[at]) R[at] = T(NAN);
        }
    }
};

template <class Number> struct Outputs {
    std::vector<Number> dP, dQ, dbu, dbi;  // the last element of dbu is dmu
    double loss = 0;

    Outputs(int64_t m, int64_t n, int64_t rank) : dP(m * rank), dQ(n * rank), dbu(m + 1), dbi(n) {}
};

constexpr double REG = 0.1;

template <class T> Outputs<double> by_formula(const Problem<T> &p) {
    Outputs<double> out(p.m, p.n, p.rank);
    for (int64_t i = 0; i < p.m; ++i)
        for (int64_t j = 0; j < p.n; ++j) {
            if (!p.mask[i * p.n + j]) continue;
            double e = double(p.bu[i]) + double(p.bi[j]) + double(p.mu[0]) - double(p.R[i * p.n + j]);
            for (int64_t k = 0; k < p.rank; ++k) e += double(p.P[i * p.rank + k]) * double(p.Q[j * p.rank + k]);
            const double weight = double(p.weights[i * p.n + j]);
            e *= weight;
            out.loss += e * e;
            e *= weight;
            out.dbu[i] += 2 * e;
            out.dbi[j] += 2 * e;
            out.dbu[p.m] += 2 * e;
            for (int64_t k = 0; k < p.rank; ++k) {
                out.dP[i * p.rank + k] += 2 * e * double(p.Q[j * p.rank + k]);
                out.dQ[j * p.rank + k] += 2 * e * double(p.P[i * p.rank + k]);
            }
        }
    const auto regularise = [&](const std::vector<T> &values, std::vector<double> &gradient) {
        for (std::size_t at = 0; at < values.size(); ++at) {
            out.loss += REG * double(values[at]) * double(values[at]);
            gradient[at] += 2 * REG * double(values[at]);
        }
    };
    regularise(p.P, out.dP);
    regularise(p.Q, out.dQ);
    regularise(p.bu, out.dbu);
    regularise(p.bi, out.dbi);
    return out;
}

template <class T> struct SparseRatings {
    std::vector<int64_t> rows{0};
    std::vector<std::uint16_t> items;
    std::vector<T> values;

    explicit SparseRatings(const Problem<T> &p) {
        for (int64_t i = 0; i < p.m; ++i, rows.push_back(int64_t(values.size())))
            for (int64_t j = 0; j < p.n; ++j)
                if (p.mask[i * p.n + j]) items.push_back(std::uint16_t(j)), values.push_back(p.R[i * p.n + j]);
    }

    Entries entries() const {
        const Matrix ratings = {values.data(), 0, 1, sizeof(T) == 8 ? FLOAT64 : FLOAT32};
        return {rows.data(), items.data(), int64_t(values.size()), 2, ratings};
    }
};

template <class T> Outputs<T> by_kernel(const Problem<T> &p, Marks marks, int64_t threads) {
    Outputs<T> out(p.m, p.n, p.rank);
    for (auto *values : {&out.dP, &out.dQ, &out.dbu, &out.dbi})
        for (T &value : *values) value = T(NAN);
    Call call{};
    call.users = {p.m, p.P.data(), p.rank, 1, p.bu.data(), 1, out.dP.data(), out.dbu.data()};
    call.items = {p.n, p.Q.data(), p.rank, 1, p.bi.data(), 1, out.dQ.data(), out.dbi.data()};
    call.ratings = {p.R.data(), p.n, 1, sizeof(T) == 8 ? FLOAT64 : FLOAT32};
    if (marks == MASK) call.mask = {p.mask.data(), p.n, 1, 1};
    if (marks == WEIGHTS) call.mask = {p.weights.data(), p.n, 1, sizeof(T) == 8 ? FLOAT64_WEIGHTS : FLOAT32_WEIGHTS};
    call.rank = p.rank;
    call.double_parameters = sizeof(T) == 8;
    call.threads = threads;
    call.gradients = 1;
    call.global_bias = p.mu.data();
    call.d_global_bias = out.dbu.data() + p.m;
    call.loss = &out.loss;
    call.reg = REG;
    if (marks == ENTRIES) {
        const SparseRatings<T> sparse(p);
        const SparseCall entries = {call, sparse.entries()};
        if (mf_rows_are_sorted(&entries.entries, p.m, p.n, threads))
            mf_sparse_step(&entries);
    } else {
        mf_step(&call);
    }
    return out;
}

// Returns whether every entry is close to the exact value, relative to the largest exact value.
template <class T> bool near(const std::vector<T> &values, const std::vector<double> &exact) {
    double largest = 0;
    for (double value : exact) largest = std::max(largest, std::abs(value));
    for (std::size_t at = 0; at < exact.size(); ++at)
        if (!(std::abs(double(values[at]) - exact[at]) <= (sizeof(T) == 8 ? 1e-12 : 1e-4) * largest)) return false;
    return true;
}

template <class T> int wrong_outputs(int64_t m, int64_t n, int64_t rank, Marks marks, int64_t threads) {
    const Problem<T> problem(m, n, rank, marks);
    const Outputs<double> exact = by_formula(problem);
    const Outputs<T> found = by_kernel(problem, marks, threads);
    const bool good[] = {near(found.dP, exact.dP),   near(found.dQ, exact.dQ),
                         near(found.dbu, exact.dbu), near(found.dbi, exact.dbi),
                         near(std::vector<T>{T(found.loss)}, {exact.loss})};
    int wrong = 0;
    for (int output = 0; output < 5; ++output)
        if (!good[output]) {
            std::printf("%ld x %ld, rank %ld, %zu bytes, %ld threads: output %d\n", long(m), long(n), long(rank),
                        sizeof(T), long(threads), output);
            ++wrong;
        }
    return wrong;
}

int main() {
    const int64_t sizes[][2] = {{1, 1}, {1, 700}, {700, 1}, {6, 16}, {7, 17}, {97, 97}, {200, 300}};
    int cases = 0, wrong = 0;
    for (const auto &size : sizes)
        for (int64_t rank : {1, 2, 3, 5, 8, 9, 15, 16, 30, 33, 66, 130})
            for (int64_t threads : {1, 2})
                for (Marks marks : {MASK, NANS, WEIGHTS, ENTRIES}) {
                    wrong += wrong_outputs<float>(size[0], size[1], rank, marks, threads);
                    wrong += wrong_outputs<double>(size[0], size[1], rank, marks, threads);
                    cases += 2;
                }
    std::printf("%d cases with vectors of %d bytes, %d outputs wrong\n", cases, VECTOR_BYTES, wrong);
    return wrong ? 1 : 0;
}
