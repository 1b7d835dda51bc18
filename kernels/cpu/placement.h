// Which core a helping thread runs on.

#pragma once

#ifdef __linux__
#include <sched.h>
#endif

// The core that the calling thread runs on; -1 where that cannot be told.
inline int this_core() {
#ifdef __linux__
    return sched_getcpu();
#else
    return -1;
#endif
}

// Keeps the thread that owns it off another one's core. Schedulers that save power put threads that often sleep on one
// core, where the helper would wait for the very thread that it is to help.
class Placement {
  public:
#ifdef __linux__
    Placement() {
        CPU_ZERO(&allowed_);
        sched_getaffinity(0, sizeof allowed_, &allowed_);
        chosen_ = allowed_;
    }

    void avoid(int core) {
        if (core < 0 || core >= CPU_SETSIZE || this_core() != core) return;
        cpu_set_t now;
        if (sched_getaffinity(0, sizeof now, &now)) return;
        if (!CPU_EQUAL(&now, &chosen_)) allowed_ = now;  // the user has chosen anew
        cpu_set_t others = allowed_;
        CPU_CLR(core, &others);
        if (CPU_COUNT(&others) && !sched_setaffinity(0, sizeof others, &others)) chosen_ = others;
    }

  private:
    cpu_set_t allowed_, chosen_;
#else
    void avoid(int) {}
#endif
};
