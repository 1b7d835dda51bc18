// A pool of helper threads that stay alive between steps.
//
// The caller works through the tasks itself, and helpers join while tasks are left, so nobody waits for a thread that
// has not started. A helper that oversleeps, is descheduled or was lost in a fork() only fails to help. Helpers spin
// briefly before they sleep, because waking one takes about as long as a small step.

#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "affinity.h"
#include "integers.h"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace mf {

inline void cpu_relax() {  // hint that the thread is spinning
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

class Pool {
  public:
    // Exclusive use of the pool. If another thread holds the pool, this lease is empty and its caller works alone.
    class Lease {
      public:
        explicit Lease(int64_t threads) : pool_(threads > 1 ? instance() : nullptr) {
            if (pool_ && !pool_->in_use_.try_lock()) pool_ = nullptr;
            if (pool_) pool_->start_helpers(threads - 1);
        }
        ~Lease() {
            if (pool_) pool_->in_use_.unlock();
        }
        Lease(const Lease &) = delete;

        // Calls task(index, thread) for every index < tasks on at most `threads` threads. A thread starts with its own
        // share, the same in every call because its cache may still hold that data, then steals from other shares.
        template <class Task> void parallel(int64_t threads, int64_t tasks, const Task &task) const {
            const auto call = [](const void *task, int64_t index, int64_t thread) {
                (*static_cast<const Task *>(task))(index, thread);
            };
            Job job(std::min({threads, tasks, MAX_THREADS}), tasks, &task, call);
            if (pool_ && job.threads > 1) pool_->run(job);
            else job.work(0);
        }

      private:
        Pool *pool_;
    };

  private:
    static constexpr int64_t MAX_THREADS = 256;

    struct Job {
        struct alignas(64) Share {
            std::atomic<int64_t> next;
            int64_t end;
        };

        const int64_t threads;
        const void *const task;
        void (*const call)(const void *task, int64_t index, int64_t thread);
        Share shares[MAX_THREADS];

        Job(int64_t threads, int64_t tasks, const void *task, void (*call)(const void *, int64_t, int64_t))
            : threads(threads), task(task), call(call) {
            for (int64_t t = 0; t < threads; ++t) {
                shares[t].next.store(t * tasks / threads, std::memory_order_relaxed);
                shares[t].end = (t + 1) * tasks / threads;
            }
        }

        void work(int64_t thread) {
            for (int64_t t = 0; t < threads; ++t) {
                Share &share = shares[(thread + t) % threads];
                for (int64_t i; (i = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;)
                    call(task, i, thread);
            }
        }
    };

    // Layout of state_: helpers at work in the low bits, then one bit for "open to join", then the job number.
    static constexpr std::uint64_t OPEN = 1 << 15, HELPERS = OPEN - 1, NEXT_JOB = OPEN << 1;
    static constexpr auto SPIN = std::chrono::microseconds(100);  // time a helper spins before it sleeps
    static constexpr int PAUSES = 64;                             // spins between readings of the clock

    std::mutex in_use_, mutex_;
    std::condition_variable posted_;
    std::vector<std::thread::native_handle_type> helpers_;
    Affinity affinity_;
    int64_t sleeping_ = 0;  // guarded by mutex_
    std::atomic<bool> any_asleep_{false};
    std::atomic<std::uint64_t> state_{0};
    std::atomic<Job *> job_{nullptr};

    static std::atomic<Pool *> &current() {
        static std::atomic<Pool *> pool{nullptr};
        return pool;
    }

    // Returns the process's pool. It is never destroyed, because its detached threads may outlive static destructors.
    // A child of fork() inherits no threads, so it creates a new pool.
    static Pool *instance() {
        Pool *pool = current().load(std::memory_order_acquire);
        if (pool) return pool;
#if defined(__unix__) || defined(__APPLE__)
        static const int registered = pthread_atfork(nullptr, nullptr, [] { current().store(nullptr); });
        (void)registered;
#endif
        Pool *created = new Pool;
        if (current().compare_exchange_strong(pool, created)) return created;
        delete created;
        return pool;
    }

    void start_helpers(int64_t helpers) {
        if (helpers <= int64_t(helpers_.size())) return;
        helpers = std::min(helpers, int64_t(usable_cores()) - 1);
        try {
            while (int64_t(helpers_.size()) < helpers) {
                helpers_.reserve(helpers_.size() + 1);
                std::thread helper(&Pool::help, this, int64_t(helpers_.size()) + 1);
                helpers_.push_back(helper.native_handle());
                helper.detach();
            }
        } catch (const std::exception &) {  // the system refuses more threads: do with those that run
        }
    }

    void run(Job &job) {
        affinity_.keep_off_caller(helpers_, std::size_t(job.threads - 1));
        job_.store(&job, std::memory_order_relaxed);
        const std::uint64_t number = state_.load(std::memory_order_relaxed) + NEXT_JOB;
        state_.store(number | OPEN);  // sequentially consistent, like any_asleep_ and await(): no wake-up is lost
        if (any_asleep_.load()) {
            std::lock_guard<std::mutex> lock(mutex_);
            posted_.notify_all();
        }
        job.work(0);
        state_.fetch_and(~OPEN);
        for (int spins = 0; state_.load(std::memory_order_acquire) & HELPERS; ++spins) {
            if (spins < PAUSES) cpu_relax();
            else std::this_thread::yield();  // a helper may be waiting for this core
        }
    }

    void help(int64_t thread) {
        for (std::uint64_t done = 0;;) {
            std::uint64_t state = await(done);
            if (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire)) continue;
            Job &job = *job_.load(std::memory_order_relaxed);  // alive until this helper has left it
            if (thread < job.threads) job.work(thread);
            state_.fetch_sub(1, std::memory_order_release);
            done = state / NEXT_JOB;
        }
    }

    // Waits for an open job other than number `done`. Returns the state that announced it.
    std::uint64_t await(std::uint64_t done) {
        const auto open = [&](std::uint64_t state) { return state & OPEN && state / NEXT_JOB != done; };
        for (;;) {
            const auto end = std::chrono::steady_clock::now() + SPIN;
            do {
                for (int i = 0; i < PAUSES; ++i, cpu_relax())
                    if (const auto state = state_.load(std::memory_order_relaxed); open(state)) return state;
                std::this_thread::yield();
            } while (std::chrono::steady_clock::now() < end);
            std::unique_lock<std::mutex> lock(mutex_);
            ++sleeping_;
            any_asleep_.store(true);
            if (!open(state_.load())) posted_.wait(lock);
            if (--sleeping_ == 0) any_asleep_.store(false);
        }  // woken too late for the job, a helper spins again: asleep, it would miss the next one as well
    }
};

}  // namespace mf
