// Which cores helping threads run on.

#pragma once

#include <thread>
#include <vector>

#ifdef __linux__
#include <pthread.h>
#include <sched.h>
#endif

// Keeps helpers on the cores that their caller may use, and off the one that it is on. Schedulers put threads that
// often sleep on one core, to save power, and callers move; the helper would then wait for the thread it is to help.
class Placement {
  public:
#ifdef __linux__
    void keep_off_caller(const std::vector<std::thread::native_handle_type> &helpers) {
        cpu_set_t allowed;
        const int core = sched_getcpu();
        if (core < 0 || core >= CPU_SETSIZE || sched_getaffinity(0, sizeof allowed, &allowed)) return;
        if (core == core_ && helpers.size() == helpers_ && CPU_EQUAL(&allowed, &allowed_)) return;
        core_ = core;
        helpers_ = helpers.size();
        allowed_ = allowed;
        if (CPU_COUNT(&allowed) > 1) CPU_CLR(core, &allowed);
        for (const auto helper : helpers) pthread_setaffinity_np(helper, sizeof allowed, &allowed);
    }

  private:
    int core_ = -1;  // this and the others: as of the last change
    std::size_t helpers_ = 0;
    cpu_set_t allowed_ = {};
#else
    void keep_off_caller(const std::vector<std::thread::native_handle_type> &) {}
#endif
};
