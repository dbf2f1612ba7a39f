// Half precision as the kernels use it. See cuda_runtime.h beside this file.
#pragma once

#include <bit>

struct __half {
    unsigned short bits;
};
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline float __half2float(__half x) { return static_cast<float>(std::bit_cast<_Float16>(x.bits)); }
