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
    static constexpr int64_t FREE_COPIES = 1 << 18;     // elements of the copies that may exceed the entries
    static constexpr int64_t REDUCTION_SIZE = 1 << 13;  // factor gradients of items per reduction

    struct Span {  // of the entries of one user
        int64_t begin = 0, end = 0;
    };

    struct Task {  // a share of the users, and what came of it so far
        Place begin, end;
        T *p, *d_p;          // [ld]: factors of the user at work, unless they are in place, and their gradient
        T *carry;            // [ld]: gradient of a first user whose first entries belong to an earlier share
        double carried_bias; // theirs
        double sse, norm, bias_sum;
        int current;         // chunk at work
        Chunk<T> *chunks;    // [2]

        Chunk<T> &chunk() { return chunks[current]; }
    };

    struct StageSums {  // of a task in one stage
        SquareSum norm;     // of users
        double errors = 0;
        ErrorSums entries;  // the errors are those of the user at work
    };

    const Call &call;
    const Entries &entries;
    const EntryReader<T, CHUNK> reader;
    const int64_t rank, ld;  // ld: of packed factors
    Side<T> users, items;
    int64_t tasks, copies, turns;  // copies: of the items' factors and gradients; turns: tasks that share one
    std::vector<int64_t> item_begins;  // [turns + 1]: of shares of the items
    const T *users_in_place, *items_in_place;  // factors, if they need no packing
    T *factors, *bias;      // of items, packed: [copies, items.count, ld], [copies, items.count]
    double *d_user_bias;    // [users]
    Task **of;              // [tasks], each on separate pages, since it changes with every chunk

  public:
    SparseStep(const Call &call, const Entries &entries)
        : call(call), entries(entries),
          reader(entries, call.items.count, call.scale, call.offset), rank(call.rank), ld(leading_dimension(rank)),
          users(call.users, 1, rank, ld), items(call.items, 1, rank, ld), users_in_place(users.factors_in_place()),
          items_in_place(items.factors_in_place()) {
        const int64_t count = entries.count;
        const double worthwhile = double(count + ROW_WORK * users.count) * double(rank) / SHARE_WORK;
        tasks = std::max<int64_t>(1, std::min(call.threads, int64_t(std::min(worthwhile, 1e9))));
        copies = tasks;
        const int64_t affordable = std::max(count, FREE_COPIES) / std::max<int64_t>(items.count * ld, 1);  // copies
        while (copies > 1 && (tasks % copies || copies > affordable)) --copies;
        turns = tasks / copies;
        item_begins = item_shares(entries, items.count, turns);
    }

    void run(Scratch &scratch) {
        allocate(scratch);
        const Pool::Lease pool(call.threads);
        for (int64_t stage = 0; stage < turns; ++stage)
            pool.parallel(call.threads, tasks, [&](int64_t task, int64_t) { run_task(task, stage); });
        double sse = 0, norm = 0;
        for (int64_t task = 0; task < tasks; ++task) sse += of[task]->sse, norm += of[task]->norm;
        *call.loss = sse + call.reg * norm;
        if (!call.gradients) return;
        join_split_users();
        const int64_t reductions = ceil_div(items.count * ld, REDUCTION_SIZE * turns);  // of a share of the items
        pool.parallel(call.threads, turns * reductions, [&](int64_t number, int64_t) {
            const int64_t share = number / reductions, part = number % reductions;
            const int64_t begin = item_begin(share), end = item_begin(share + 1);
            items.reduce_rows(part_begin(begin, end, part, reductions), part_begin(begin, end, part + 1, reductions),
                              copies, call.reg);
        });
        double bias_sum = 0;
        for (int64_t task = 0; task < tasks; ++task) bias_sum += of[task]->bias_sum;
        *static_cast<T *>(call.d_global_bias) = T(2 * bias_sum);
    }

  private:
    static int64_t leading_dimension(int64_t rank) { return round_up(rank, LANES); }

    void allocate(Scratch &scratch) {
        scratch.reset();
        factors = items_in_place ? nullptr : scratch.allocate<T>(copies * items.count * ld);
        bias = scratch.allocate<T>(copies * items.count);
        if (call.gradients) {
            items.d_factors = scratch.allocate<T>(copies * items.count * ld);
            items.d_bias = scratch.allocate<double>(copies * items.count);
            d_user_bias = scratch.allocate<double>(users.count);
        }
        of = scratch.allocate<Task *>(tasks);
        for (int64_t task = 0; task < tasks; ++task) {
            scratch.begin_page();
            of[task] = scratch.allocate<Task>(1);
            T *const buffers = scratch.allocate<T>(3 * ld);
            std::fill_n(buffers, 3 * ld, T(0));
            *of[task] = {share_begin(entries, users.count, task, tasks),
                         share_begin(entries, users.count, task + 1, tasks),
                         buffers, buffers + ld, buffers + 2 * ld, 0, 0, 0, 0, 0,
                         scratch.allocate<Chunk<T>>(2)};
            std::fill_n(of[task]->chunks, 2, Chunk<T>{});
        }
    }

    // Returns where part `part` of `parts` of the rows `begin` to `end` begins.
    static int64_t part_begin(int64_t begin, int64_t end, int64_t part, int64_t parts) {
        return begin + (end - begin) * part / parts;
    }

    int64_t item_begin(int64_t share) const { return item_begins[std::size_t(share)]; }

    Rows<T> rows_of(int64_t copy) const {
        const int64_t first = copy * items.count;
        Rows<T> rows = {items_in_place ? items_in_place : factors + first * ld, bias + first, nullptr, nullptr, ld / LANES};
        if (call.gradients) {
            rows.d_factors = items.d_factors + first * ld;
            rows.d_bias = items.d_bias + first;
        }
        return rows;
    }

    // Packs a share of the items for the task that works on it in every stage, and sets their gradients to zero: what a
    // core wrote itself is in its cache.
    void prepare_items(int64_t copy, int64_t share, double &norm) {
        const int64_t begin = item_begin(share), end = item_begin(share + 1);
        const Rows<T> rows = rows_of(copy);
        if (!items_in_place) items.pack_factors(begin, end, factors + (copy * items.count + begin) * ld);
        items.pack_biases(begin, end, *static_cast<const T *>(call.global_bias), bias + copy * items.count + begin);
        const int64_t first = part_begin(begin, end, copy, copies), last = part_begin(begin, end, copy + 1, copies);
        norm += items.squared_norm(first, last, rows.factors + first * ld);
        if (!call.gradients) return;
        std::fill(rows.d_factors + begin * ld, rows.d_factors + end * ld, T(0));
        std::fill(rows.d_bias + begin, rows.d_bias + end, 0.0);
    }

    // Works through the entries of the stage's share of the users whose items are in share `number` of these.
    void run_task(int64_t number, int64_t stage) {
        const int64_t copy = number / turns, share = number % turns;
        Task &task = *of[copy * turns + (share + turns - stage) % turns];
        if (stage == 0) prepare_items(copy, share, task.norm);
        const Rows<T> rows = rows_of(copy);
        const bool first = stage == 0, last = stage == turns - 1;
        const int64_t end = task.end.user + (task.end.entry > entries.begin(task.end.user));
        StageSums sums;
        Span span = span_of(task, task.begin.user, share);
        read_items(span, task.chunk());
        for (int64_t user = task.begin.user; user < end; ++user) {
            const Span next = user + 1 < end ? span_of(task, user + 1, share) : Span{};
            if (span.begin < span.end || first || last) run_user(task, rows, user, span, next, first, last, sums);
            if (span.begin == span.end) read_items(next, task.chunk());
            span = next;
        }
        task.sse += sum_lanes<double>(sums.entries.squares);
        task.norm += sums.norm.total();
        task.bias_sum += sums.errors;
    }

    // Returns the entries of a task's user whose items are in a share.
    Span span_of(const Task &task, int64_t user, int64_t share) const {
        if (user == users.count) return {};
        Span span;
        span.begin = std::max(entries.begin(user), task.begin.entry);
        span.end = std::max(span.begin, std::min(entries.begin(user + 1), task.end.entry));
        if (share > 0)
            span.begin = first_not_below(entries, span.begin, span.end, item_begin(share));
        if (share < turns - 1)
            span.end = first_not_below(entries, span.begin, span.end, item_begin(share + 1));
        return span;
    }

    void read_items(const Span &span, Chunk<T> &chunk) const {
        chunk.count = std::min<int64_t>(CHUNK, span.end - span.begin);
        reader.read_items(span.begin, chunk.items);
        const auto first = chunk.items[0], count = std::int32_t(chunk.count);
        for (std::int32_t i = 0; i < CHUNK; ++i)  // another task may be packing the items that follow
            chunk.items[i] = i < count ? chunk.items[i] : first;
        for (int i = 0; i < CHUNK; ++i)  // of 32-bit factors, which vectors multiply at once
            chunk.rows[i] = int64_t(std::uint64_t(std::uint32_t(chunk.items[i])) * std::uint32_t(ld));
    }

    // Works through a user's span. The task's chunk has its first items, and afterwards those of the next span.
    void run_user(Task &task, const Rows<T> &rows, int64_t user, Span span, const Span &next, bool first, bool last,
                  StageSums &sums) {
        const bool carried = entries.begin(user) < task.begin.entry;  // the user belongs to an earlier task
        if (!users_in_place) users.load_row(user, task.p);
        const T *const p = users_in_place ? users_in_place + user * ld : task.p;
        const T bias = users.bias(user);
        if (first && !carried) {
            sums.norm.add(ld, p);
            sums.norm.add(double(bias));
        }
        T *const out = users.gradient_of(user);
        if (call.gradients) {
            if (!first) std::copy_n(carried ? task.carry : out, rank, task.d_p);
            else for (int64_t k = 0; k < ld; k += LANES) store(task.d_p + k, typename Simd<T>::Vector{});
        }
        sums.entries.errors = typename Simd<double>::Vector{};
        while (span.begin < span.end) {
            Chunk<T> &chunk = task.chunk();
            task.current ^= 1;
            Chunk<T> &ahead = task.chunk();
            reader.read_ratings(span.begin, chunk.errors);
            span.begin += chunk.count;
            read_items(span.begin < span.end ? span : next, ahead);
            if (call.gradients) {
                chunk_errors<true>(chunk, rows, p, bias, sums.entries);
                chunk_gradients(chunk, ahead, rows, p, task.d_p);
            } else {
                chunk_errors<false>(chunk, rows, p, bias, sums.entries);
            }
        }
        if (!call.gradients) return;
        const double errors = sum_lanes<double>(sums.entries.errors);
        sums.errors += errors;
        if (carried) {
            task.carried_bias += errors;
            std::copy_n(task.d_p, rank, task.carry);
            return;
        }
        d_user_bias[user] = errors + (first ? 0 : d_user_bias[user]);
        const bool split = task.end.entry < entries.begin(user + 1);
        if (last && !split) users.store_gradient(user, task.d_p, p, d_user_bias[user], call.reg);
        else std::copy_n(task.d_p, rank, out);
    }

    // Completes the gradients of users whose entries several tasks worked through.
    void join_split_users() {
        for (int64_t task = 1; task < tasks; ++task) {
            const int64_t user = of[task]->begin.user;
            if (user == users.count || entries.begin(user) == of[task]->begin.entry) continue;
            T *const sum = of[task]->d_p;
            std::copy_n(users.gradient_of(user), rank, sum);
            for (; task < tasks && of[task]->begin.user == user; ++task) {
                for (int64_t k = 0; k < rank; ++k) sum[k] += of[task]->carry[k];
                d_user_bias[user] += of[task]->carried_bias;
            }
            users.load_row(user, of[--task]->p);
            users.store_gradient(user, sum, of[task]->p, d_user_bias[user], call.reg);
        }
    }
};

}  // namespace mf
