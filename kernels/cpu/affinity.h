// Which cores helping threads run on.

#pragma once

#include <algorithm>
#include <cstddef>
#include <thread>
#include <vector>

#ifdef __linux__
#include <pthread.h>
#include <sched.h>
#endif

// How many cores the calling thread may use.
inline std::size_t usable_cores() {
#ifdef __linux__
    cpu_set_t allowed;
    if (!sched_getaffinity(0, sizeof allowed, &allowed)) return std::size_t(CPU_COUNT(&allowed));
#endif
    return std::max(1u, std::thread::hardware_concurrency());
}

// Keeps helpers on the cores that their caller may use, and off the one that it is on. Schedulers put threads that
// often sleep on one core, to save power, and callers move; the helper would then wait for the thread it is to help.
// Helpers of a caller with one core stay where they are.
class Placement {
  public:
#ifdef __linux__
    void keep_off_caller(const std::vector<std::thread::native_handle_type> &helpers, std::size_t wanted) {
        cpu_set_t allowed;
        const int core = sched_getcpu();
        if (core < 0 || core >= CPU_SETSIZE || sched_getaffinity(0, sizeof allowed, &allowed)) return;
        if (core != core_ || !CPU_EQUAL(&allowed, &allowed_)) placed_ = 0;
        core_ = core;
        allowed_ = allowed;
        if (CPU_COUNT(&allowed) < 2) return;
        CPU_CLR(core, &allowed);
        for (; placed_ < std::min(wanted, helpers.size()); ++placed_)
            pthread_setaffinity_np(helpers[placed_], sizeof allowed, &allowed);
    }

  private:
    int core_ = -1;
    cpu_set_t allowed_ = {};
    std::size_t placed_ = 0;  // helpers for which core_ and allowed_ are considered
#else
    void keep_off_caller(const std::vector<std::thread::native_handle_type> &, std::size_t) {}
#endif
};
