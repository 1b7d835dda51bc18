// How long a cache line takes from one core to another.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <thread>

using Clock = std::chrono::steady_clock;

static constexpr int BATCHES = 50, ROUNDS = 200;                  // round trips are timed in batches
static constexpr auto PATIENCE = std::chrono::milliseconds(500);  // for the other thread to get a core of its own

// Returns the nanoseconds that a line takes one way between the caller and another thread, those of the fastest batch;
// 0 if the other thread got no core.
extern "C" double core_distance() {
    alignas(128) std::atomic<int> line{0};  // odd: the caller has written it
    std::atomic<bool> stopped{false};
    std::thread other([&] {
        for (int i = 1; i < 2 * BATCHES * ROUNDS; i += 2) {
            while (line.load() != i)
                if (stopped.load()) return;
            line.store(i + 1);
        }
    });
    double least = std::numeric_limits<double>::infinity();
    const auto end = Clock::now() + PATIENCE;
    for (int i = 1; i < 2 * BATCHES * ROUNDS && !stopped.load();) {
        const auto start = Clock::now();
        for (int round = 0; round < ROUNDS && !stopped.load(); ++round, i += 2) {
            line.store(i);
            for (int spins = 1; line.load() != i + 1; ++spins)
                if (spins % 4096 == 0 && Clock::now() > end) {
                    stopped.store(true);
                    break;
                }
        }
        const std::chrono::duration<double, std::nano> taken = Clock::now() - start;
        if (!stopped.load()) least = std::min(least, taken.count() / ROUNDS / 2);
    }
    stopped.store(true);
    other.join();
    return least < 1e9 ? least : 0;
}
