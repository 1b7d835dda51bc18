// Memory kept between calls.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

using std::int64_t;

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
