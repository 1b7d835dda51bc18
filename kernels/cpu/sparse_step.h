// One training step on sparse ratings: errors, loss and every gradient in one pass over the entries.
//
// The users are divided into shares of equal work, the tasks of the threads; a user with many entries may be split. The
// gradients of items are added in memory, where two threads must not meet. Either every task has a private copy, or,
// where copies would exceed the entries, tasks share one: the items are divided into as many shares as tasks have one
// copy, and in stage s task t works on share t of the items, which its cache may still hold, and share t - s of the
// users. What is added and in which order depends on the number of threads requested, never on their timing.

#pragma once

#include <vector>

#include "call.h"
#include "entry_loops.h"
#include "packing.h"
#include "pool.h"
#include "scratch.h"
#include "shares.h"

namespace mf {

template <class T> class SparseStep {
    static constexpr int LANES = Simd<T>::LANES;
    static constexpr int64_t CELL = 16;  // items: sums of squares take whole cells
    static constexpr int64_t FREE_COPIES = 1 << 18;     // elements of the copies that may exceed the entries
    static constexpr int64_t REDUCTION_SIZE = 1 << 13;  // factor gradients of items per reduction

    struct Span {  // of the entries of one user
        int64_t begin = 0, end = 0;
    };

    struct alignas(64) Task {  // a share of the users, and what came of it so far
        Place begin, end;
        T *p, *d_p;          // [padded]: factors of the user at work, and their gradient
        T *carry;            // [padded]: gradient of a first user whose first entries belong to an earlier share
        double carried_bias; // theirs
        double sse, norm, bias_sum;
        int current;         // chunk at work
        Chunk<T> *chunks;    // [2]

        Chunk<T> &chunk() { return chunks[current]; }
    };

    const Call &call;
    const Entries &entries;
    const EntryReader<T, CHUNK> reader;
    const int64_t rank, ld, padded;  // ld: of packed factors; padded: elements of a user's factors
    Side<T> users, items;
    int64_t tasks, copies, turns;  // copies: of the gradients of items; turns: tasks that share one, shares of the items
    std::vector<int64_t> item_begins;
    T *factors, *bias;      // packed, of items
    double *d_user_bias;    // [users]
    double *norms;          // [items.ranges]
    Task *of;               // [tasks]

  public:
    SparseStep(const Call &call, const Entries &entries)
        : call(call), entries(entries),
          reader(entries, call.items.count, call.scale, call.offset), rank(call.rank), ld(leading_dimension(rank)),
          padded(round_up(ld, CHAINS * Simd<double>::LANES)),
          users(call.users, 1, rank, ld), items(call.items, CELL, rank, ld) {
        const int64_t count = entries.count;
        const double worthwhile = double(count + ROW_WORK * users.count) * double(rank) / SHARE_WORK;
        tasks = std::max<int64_t>(1, std::min(call.threads, int64_t(std::min(worthwhile, 1e9))));
        copies = tasks;
        const int64_t affordable = std::max(count, FREE_COPIES) / (items.padded * ld);  // copies
        while (call.gradients && copies > 1 && (tasks % copies || copies > affordable)) --copies;
        turns = tasks / copies;
        item_begins = item_shares(entries, items.count, turns);
        items.ranges = std::min(tasks, items.padded / CELL);
    }

    void run(Scratch &scratch) {
        allocate(scratch);
        const Pool::Lease pool(call.threads);
        pool.parallel(call.threads, items.ranges, [&](int64_t range, int64_t) { pack_items(range); });
        for (int64_t stage = 0; stage < turns; ++stage)
            pool.parallel(call.threads, tasks, [&](int64_t task, int64_t) { run_task(task, stage); });
        double sse = 0, norm = 0;
        for (int64_t task = 0; task < tasks; ++task) sse += of[task].sse, norm += of[task].norm;
        for (int64_t range = 0; range < items.ranges; ++range) norm += norms[range];
        *call.loss = sse + call.reg * norm;
        if (!call.gradients) return;
        join_split_users();
        const int64_t reductions = ceil_div(items.padded * ld, REDUCTION_SIZE);
        pool.parallel(call.threads, reductions, [&](int64_t part, int64_t) {
            items.reduce(part, reductions, copies, call.reg);
        });
        double bias_sum = 0;
        for (int64_t task = 0; task < tasks; ++task) bias_sum += of[task].bias_sum;
        *static_cast<T *>(call.d_global_bias) = T(2 * bias_sum);
    }

  private:
    static int64_t leading_dimension(int64_t rank) { return round_up(rank, LANES); }

    void allocate(Scratch &scratch) {
        scratch.reset();
        factors = scratch.allocate<T>(items.padded * ld);
        bias = scratch.allocate<T>(items.padded);
        norms = scratch.allocate<double>(items.ranges);
        if (call.gradients) {
            items.d_factors = scratch.allocate<T>(copies * items.padded * ld);
            items.d_bias = scratch.allocate<double>(copies * items.padded);
            d_user_bias = scratch.allocate<double>(users.count);
        }
        of = scratch.allocate<Task>(tasks);
        for (int64_t task = 0; task < tasks; ++task) {
            T *const buffers = scratch.allocate<T>(3 * padded);
            std::fill_n(buffers, 3 * padded, T(0));
            of[task] = {share_begin(entries, users.count, task, tasks),
                        share_begin(entries, users.count, task + 1, tasks),
                        buffers, buffers + padded, buffers + 2 * padded, 0, 0, 0, 0, 0,
                        scratch.allocate<Chunk<T>>(2)};
            std::fill_n(of[task].chunks, 2, Chunk<T>{});
        }
    }

    void pack_items(int64_t range) {
        const int64_t first = items.begin(range);
        PackedRange<T> packed = {-1, 0, ld, factors + first * ld, bias + first};
        items.pack(range, *static_cast<const T *>(call.global_bias), packed);
        norms[range] = items.squared_norm(packed);
        if (call.gradients) for (int64_t copy = 0; copy < copies; ++copy) items.clear(copy, range);
    }

    // Works through the entries of the stage's share of the users whose items are in share `number` of these.
    void run_task(int64_t number, int64_t stage) {
        const int64_t copy = number / turns, share = number % turns;
        Task &task = of[copy * turns + (share + turns - stage) % turns];
        Rows<T> rows = {factors, bias, nullptr, nullptr, ld / LANES};
        if (call.gradients) {
            rows.d_factors = items.d_factors + copy * items.padded * ld;
            rows.d_bias = items.d_bias + copy * items.padded;
        }
        const bool first = stage == 0, last = stage == turns - 1;
        const int64_t end = task.end.user + (task.end.entry > entries.begin(task.end.user));
        Span span = span_of(task, task.begin.user, share);
        read_items(span, task.chunk());
        for (int64_t user = task.begin.user; user < end; ++user) {
            const Span next = user + 1 < end ? span_of(task, user + 1, share) : Span{};
            if (span.begin < span.end || first || last) run_user(task, rows, user, span, next, first, last);
            if (span.begin == span.end) read_items(next, task.chunk());
            span = next;
        }
    }

    // Returns the entries of a task's user whose items are in a share.
    Span span_of(const Task &task, int64_t user, int64_t share) const {
        if (user == users.count) return {};
        Span span;
        span.begin = std::max(entries.begin(user), task.begin.entry);
        span.end = std::max(span.begin, std::min(entries.begin(user + 1), task.end.entry));
        if (share > 0)
            span.begin = first_not_below(entries, span.begin, span.end, item_begins[std::size_t(share)]);
        if (share < turns - 1)
            span.end = first_not_below(entries, span.begin, span.end, item_begins[std::size_t(share + 1)]);
        return span;
    }

    void read_items(const Span &span, Chunk<T> &chunk) const {
        chunk.count = std::min<int64_t>(CHUNK, span.end - span.begin);
        reader.read_items(span.begin, chunk.items);
        for (int i = 0; i < CHUNK; ++i)  // of 32-bit factors, which vectors multiply at once
            chunk.rows[i] = int64_t(std::uint64_t(std::uint32_t(chunk.items[i])) * std::uint32_t(ld));
    }

    // Works through a user's span. The task's chunk has its first items, and afterwards those of the next span.
    void run_user(Task &task, const Rows<T> &rows, int64_t user, Span span, const Span &next, bool first, bool last) {
        const bool carried = entries.begin(user) < task.begin.entry;  // the user belongs to an earlier task
        users.load_row(user, task.p);
        if (first && !carried) {
            const double b = double(users.bias(user));
            task.norm += sum_of_squares(padded, task.p) + b * b;
        }
        T *const out = users.gradient_of(user);
        if (call.gradients) {
            if (first) std::fill_n(task.d_p, ld, T(0));
            else std::copy_n(carried ? task.carry : out, rank, task.d_p);
        }
        ErrorSums sums;
        while (span.begin < span.end) {
            Chunk<T> &chunk = task.chunk();
            task.current ^= 1;
            Chunk<T> &ahead = task.chunk();
            reader.read_ratings(span.begin, chunk.errors);
            span.begin += chunk.count;
            read_items(span.begin < span.end ? span : next, ahead);
            if (call.gradients) {
                chunk_errors<true>(chunk, rows, task.p, users.bias(user), sums);
                chunk_gradients(chunk, ahead, rows, task.p, task.d_p);
            } else {
                chunk_errors<false>(chunk, rows, task.p, users.bias(user), sums);
            }
        }
        task.sse += sums.squares;
        if (!call.gradients) return;
        task.bias_sum += sums.errors;
        if (carried) {
            task.carried_bias += sums.errors;
            std::copy_n(task.d_p, rank, task.carry);
            return;
        }
        d_user_bias[user] = sums.errors + (first ? 0 : d_user_bias[user]);
        const bool split = task.end.entry < entries.begin(user + 1);
        if (last && !split) users.store_gradient(user, task.d_p, task.p, d_user_bias[user], call.reg);
        else std::copy_n(task.d_p, rank, out);
    }

    // Completes the gradients of users whose entries several tasks worked through.
    void join_split_users() {
        for (int64_t task = 1; task < tasks; ++task) {
            const int64_t user = of[task].begin.user;
            if (user == users.count || entries.begin(user) == of[task].begin.entry) continue;
            T *const sum = of[task].d_p;
            std::copy_n(users.gradient_of(user), rank, sum);
            for (; task < tasks && of[task].begin.user == user; ++task) {
                for (int64_t k = 0; k < rank; ++k) sum[k] += of[task].carry[k];
                d_user_bias[user] += of[task].carried_bias;
            }
            users.load_row(user, of[--task].p);
            users.store_gradient(user, sum, of[task].p, d_user_bias[user], call.reg);
        }
    }
};

}  // namespace mf
