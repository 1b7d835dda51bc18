// Memory kept between calls.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

namespace mf {

using std::int64_t;

class Arena {  // one allocation that grows as needed
  public:
    Arena() = default;
    Arena(const Arena &) = delete;
    ~Arena() { release(); }

    // At least `bytes` of memory, aligned to pages; what it held before is gone.
    char *reserve(int64_t bytes) {
        if (bytes > size_) {
            release();
            const int64_t size = (bytes + 4095) / 4096 * 4096;
            data_ = static_cast<char *>(std::aligned_alloc(4096, std::size_t(size)));
            if (!data_) throw std::bad_alloc();
            size_ = size;
        }
        return data_;
    }

    void release() {
        std::free(data_);
        data_ = nullptr;
        size_ = 0;
    }

  private:
    char *data_ = nullptr;
    int64_t size_ = 0;
};

}  // namespace mf
