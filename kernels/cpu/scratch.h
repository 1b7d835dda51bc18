// Scratch memory that is kept between calls.

#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "integers.h"

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#endif

namespace mf {

// A bump allocator. Once it has grown to what a step needs, all of a step's memory is one chunk. Large chunks are on huge
// pages where the system has them: sparse ratings reach rows of factors in random order, each on another page.
class Scratch {
  public:
    // Takes back everything allocated so far, and merges the chunks into one as large as what was in use.
    void reset() {
        if (chunks_.size() > 1) {
            const int64_t needed = used_;
            release();
            add_chunk(needed);
        }
        free_ = chunks_.empty() ? 0 : chunks_.back().size;
        used_ = 0;
    }

    // Returns uninitialised memory for `count` values, aligned to cache lines and valid until `reset` or `release`.
    // Throws std::bad_alloc if there is no memory.
    template <class Value> Value *allocate(int64_t count) {
        const int64_t bytes = round_up(count * int64_t(sizeof(Value)), ALIGNMENT);
        if (chunks_.empty() || bytes > free_) add_chunk(bytes);
        const Chunk &chunk = chunks_.back();
        char *data = chunk.data.get() + (chunk.size - free_);
        free_ -= bytes;
        used_ += bytes;
        return reinterpret_cast<Value *>(data);
    }

    // Lets the next allocation begin on a page, so that its memory is no neighbour of what was allocated before: a core
    // prefetches the lines that follow those it works on, up to the end of a page, and takes them from another core.
    void begin_page() {
        const int64_t rest = free_ % PAGE;
        free_ -= rest;
        used_ += PAGE;  // at least the rest of a page in any chunk
    }

    // Returns all memory to the system.
    void release() {
        chunks_.clear();
        free_ = used_ = 0;
    }

  private:
    static constexpr int64_t ALIGNMENT = 64, PAGE = 4096, HUGE_PAGE = 1 << 21;  // bytes

    struct Free {
        void operator()(char *data) const { std::free(data); }
    };

    struct Chunk {
        std::unique_ptr<char[], Free> data;
        int64_t size;
    };

    std::vector<Chunk> chunks_;
    int64_t free_ = 0;  // bytes left at the end of the last chunk
    int64_t used_ = 0;  // bytes allocated since the last reset

    void add_chunk(int64_t bytes) {
        const int64_t page = bytes >= HUGE_PAGE ? HUGE_PAGE : PAGE, size = std::max(page, round_up(bytes, page));
        std::unique_ptr<char[], Free> data(static_cast<char *>(std::aligned_alloc(page, std::size_t(size))));
        if (!data) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
        if (page == HUGE_PAGE) madvise(data.get(), std::size_t(size), MADV_HUGEPAGE);  // a hint, which may be refused
#endif
        chunks_.push_back({std::move(data), size});
        free_ = size;
    }
};

}  // namespace mf
