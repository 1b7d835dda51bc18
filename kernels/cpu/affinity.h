// Processor affinity of helper threads.

#pragma once

#include <algorithm>
#include <cstddef>
#include <thread>
#include <vector>

#ifdef __linux__
#include <pthread.h>
#include <sched.h>
#endif

namespace mf {

// Returns the number of cores that the calling thread may run on.
inline std::size_t usable_cores() {
#ifdef __linux__
    cpu_set_t allowed;
    if (!sched_getaffinity(0, sizeof allowed, &allowed)) return std::size_t(CPU_COUNT(&allowed));
#endif
    return std::max(1u, std::thread::hardware_concurrency());
}

// Keeps helpers on the cores that their caller may use, except the caller's own. To save power, schedulers put threads
// that sleep often on one core, where a helper would wait for the very thread it should help. Callers migrate, so the
// affinity is checked at every job. Nothing changes for a caller that may use only one core.
class Affinity {
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
    int core_ = -1;           // of the caller
    cpu_set_t allowed_ = {};  // to the caller
    std::size_t placed_ = 0;  // helpers whose affinity matches core_ and allowed_
#else
    void keep_off_caller(const std::vector<std::thread::native_handle_type> &, std::size_t) {}
#endif
};

}  // namespace mf
