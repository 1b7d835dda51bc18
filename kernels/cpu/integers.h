// Integer arithmetic on sizes.

#pragma once

#include <cstdint>

namespace mf {

using std::int64_t;

inline int64_t ceil_div(int64_t count, int64_t size) { return (count + size - 1) / size; }
inline int64_t round_up(int64_t count, int64_t multiple) { return ceil_div(count, multiple) * multiple; }

}  // namespace mf
