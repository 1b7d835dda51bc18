// Threads that help with a step, and wait for the next one.
//
// The caller works through the tasks itself; helpers join while there are some left. So nobody ever waits for a thread
// that has not started: a helper that sleeps on, that another process keeps from its core, or that a fork left behind,
// costs its help and no more. Helpers spin for a moment before they sleep, since waking one costs as much as a small
// step does.

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

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

using std::int64_t;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

class Pool {
  public:
    // The pool, to be asked for tasks until the lease ends; nobody's if another thread has it, who then works alone.
    class Lease {
      public:
        explicit Lease(int64_t threads) : pool_(threads > 1 ? instance() : nullptr) {
            if (pool_ && !pool_->taken_.try_lock()) pool_ = nullptr;
            if (pool_) pool_->hire(threads - 1);
        }
        ~Lease() {
            if (pool_) pool_->taken_.unlock();
        }
        Lease(const Lease &) = delete;

        // task(index, thread) for every index < tasks, on at most `threads` threads. Each begins with a share of its
        // own, the same in every call, whose memory its cache may still hold, and then helps the others with theirs.
        template <class Task> void parallel(int64_t threads, int64_t tasks, const Task &task) const {
            const auto call = [](const void *task, int64_t index, int64_t thread) {
                (*static_cast<const Task *>(task))(index, thread);
            };
            Job job(std::min({threads, tasks, MOST_THREADS}), tasks, &task, call);
            if (pool_ && job.threads > 1) pool_->run(job);
            else job.work(0);
        }

      private:
        Pool *pool_;
    };

  private:
    static constexpr int64_t MOST_THREADS = 256;

    struct Job {
        struct alignas(64) Share {
            std::atomic<int64_t> next;
            int64_t end;
        };

        const int64_t threads;
        const void *const task;
        void (*const call)(const void *task, int64_t index, int64_t thread);
        Share shares[MOST_THREADS];

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

    // state_: whether a job may be joined, how many are on it, and the number of the job above them.
    static constexpr std::uint64_t OPEN = 1 << 15, HELPERS = OPEN - 1, NEXT_JOB = OPEN << 1;
    static constexpr auto SPIN = std::chrono::microseconds(100);
    static constexpr int PAUSES = 64;  // between looks at the clock

    std::mutex taken_, mutex_;
    std::condition_variable posted_;
    std::vector<std::thread::native_handle_type> helpers_;
    Placement placement_;
    int64_t sleeping_ = 0;  // under mutex_
    std::atomic<bool> any_asleep_{false};
    std::atomic<std::uint64_t> state_{0};
    std::atomic<Job *> job_{nullptr};

    static std::atomic<Pool *> &current() {
        static std::atomic<Pool *> pool{nullptr};
        return pool;
    }

    // Never destroyed, since its threads outlive everything. A child of fork() has none of them and gets a new one.
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

    void hire(int64_t helpers) {
        if (helpers <= int64_t(helpers_.size())) return;
        helpers = std::min(helpers, int64_t(usable_cores()) - 1);
        try {
            while (int64_t(helpers_.size()) < helpers) {
                helpers_.reserve(helpers_.size() + 1);
                std::thread helper(&Pool::help, this, int64_t(helpers_.size()) + 1);
                helpers_.push_back(helper.native_handle());
                helper.detach();
            }
        } catch (const std::exception &) {  // no more threads to be had: those there are will do
        }
    }

    void run(Job &job) {
        placement_.keep_off_caller(helpers_, std::size_t(job.threads - 1));
        job_.store(&job, std::memory_order_relaxed);
        const std::uint64_t number = state_.load(std::memory_order_relaxed) + NEXT_JOB;
        state_.store(number | OPEN);  // sequentially consistent, as are the flag below and what a helper does to sleep
        if (any_asleep_.load()) {
            std::lock_guard<std::mutex> lock(mutex_);
            posted_.notify_all();
        }
        job.work(0);
        state_.fetch_and(~OPEN);
        for (int spins = 0; state_.load(std::memory_order_acquire) & HELPERS; ++spins) {
            if (spins < PAUSES) pause();
            else std::this_thread::yield();  // to a helper that waits for this core
        }
    }

    void help(int64_t thread) {
        for (std::uint64_t done = 0;;) {
            std::uint64_t state = await(done);
            if (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire)) continue;
            Job &job = *job_.load(std::memory_order_relaxed);  // stays until this helper has left it
            if (thread < job.threads) job.work(thread);
            state_.fetch_sub(1, std::memory_order_release);
            done = state / NEXT_JOB;
        }
    }

    // The state with a job open that is not number `done`.
    std::uint64_t await(std::uint64_t done) {
        const auto open = [&](std::uint64_t state) { return state & OPEN && state / NEXT_JOB != done; };
        for (;;) {
            const auto end = std::chrono::steady_clock::now() + SPIN;
            do {
                for (int i = 0; i < PAUSES; ++i, pause())
                    if (const auto state = state_.load(std::memory_order_relaxed); open(state)) return state;
                std::this_thread::yield();
            } while (std::chrono::steady_clock::now() < end);
            std::unique_lock<std::mutex> lock(mutex_);
            ++sleeping_;
            any_asleep_.store(true);
            if (!open(state_.load())) posted_.wait(lock);
            if (--sleeping_ == 0) any_asleep_.store(false);
        }  // who was woken too late for a job spins for the next one: asleep it would be too late for that one, too
    }
};
