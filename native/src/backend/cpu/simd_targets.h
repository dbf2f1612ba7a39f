// The instruction sets that vector kernels are compiled for. Include before any header of Highway.
//
// Left out to halve the compile time where a neighbour is nearly as fast: SSSE3 and SSE4 (run the SSE2 code), AVX3_DL
// (runs AVX3). Vectors without a compile-time size (SVE, RVV) cannot be held in arrays; Arm processors with SVE run
// NEON.
#pragma once

#ifdef LORICA_CPU_TARGET  // for one machine alone, see LORICA_CPU_TARGETS in CMakeLists.txt
#define HWY_DISABLED_TARGETS (~(LORICA_CPU_TARGET | HWY_SSE2))
#else
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_ALL_SVE | HWY_RVV)
#endif
