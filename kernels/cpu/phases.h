// Where the time of a step goes, in builds with -DTIME_PHASES (tests/studies/cpu_phases.py); others time nothing.

#pragma once

#include <cstdint>

#ifdef TIME_PHASES
#include <chrono>
#endif

namespace mf {

// DECODING: also finding observed micro-tiles. PREDICTIONS: also the errors where these are made in registers. STEP: all
// of mf_step. Numbered as in the study.
enum Phase { PACKING, DECODING, PREDICTIONS, ERRORS, USER_GRADIENTS, ITEM_GRADIENTS, REDUCTION, STEP, PHASES };

#ifdef TIME_PHASES

inline thread_local double phase_seconds[PHASES];  // of the calling thread

class Stopwatch {
    using Clock = std::chrono::steady_clock;
    Clock::time_point last_ = Clock::now();

  public:
    // Books the time since the last call, or since the beginning, on a phase.
    void book(Phase phase) {
        const auto now = Clock::now();
        phase_seconds[phase] += std::chrono::duration<double>(now - last_).count();
        last_ = now;
    }
};

#else

struct Stopwatch {
    void book(Phase) {}
};

#endif

}  // namespace mf
