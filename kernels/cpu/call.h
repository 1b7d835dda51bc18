// The arguments of one step.

#pragma once

#include "entries.h"
#include "packing.h"

namespace mf {

// Packed by launch.py, field by field, in the same order.
struct Call {
    Parameters users, items;
    Matrix ratings, mask;
    int64_t rank, double_parameters, threads, gradients;  // double_parameters and gradients: 0 or 1
    const void *global_bias;
    void *d_global_bias;
    double *loss;
    double reg, scale, offset;  // scale and offset: a rating code is worth code * scale + offset
};

static_assert(sizeof(Call) == 272, "keep CALL in launch.py in step");

struct SparseCall {  // without a mask
    Call call;
    Entries entries;
};

static_assert(sizeof(SparseCall) == 272 + 64, "keep ENTRIES in launch.py in step");

}  // namespace mf
