// Tasks on threads, and memory kept between calls.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

#ifdef _OPENMP
#include <omp.h>
#else
#include <thread>
#include <vector>
#endif

using std::int64_t;

// task(index, thread) for every index < tasks, handed out in order to at most `threads` threads.
template <class Task> void parallel(int64_t threads, int64_t tasks, Task task) {
    threads = std::min(threads, tasks);
    std::atomic<int64_t> next{0};
    const auto work = [&](int64_t thread) {
        for (int64_t index; (index = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) task(index, thread);
    };
    if (threads <= 1) return work(0);
#ifdef _OPENMP
#pragma omp parallel num_threads(int(threads))
    work(omp_get_thread_num());
#else
    std::vector<std::thread> others;
    for (int64_t thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
    work(0);
    for (auto &other : others) other.join();
#endif
}

class Arena {  // one allocation that grows as needed
  public:
    Arena() = default;
    Arena(const Arena &) = delete;
    ~Arena() { std::free(data_); }

    // At least `bytes` of memory, aligned to pages; what it held before is gone.
    char *reserve(int64_t bytes) {
        if (bytes > size_) {
            std::free(data_);
            size_ = (bytes + 4095) / 4096 * 4096;
            data_ = static_cast<char *>(std::aligned_alloc(4096, std::size_t(size_)));
            if (!data_) {
                size_ = 0;
                throw std::bad_alloc();
            }
        }
        return data_;
    }

  private:
    char *data_ = nullptr;
    int64_t size_ = 0;
};
