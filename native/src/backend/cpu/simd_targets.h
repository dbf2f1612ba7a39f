// The instruction sets that vector kernels are compiled for. Include before any header of Highway.
//
// Left out to halve the compile time where a neighbour is nearly as fast: SSSE3 and SSE4 (run the SSE2 code), AVX3_DL
// (runs AVX3), and of Arm's HWY_NEON (HWY_NEON_WITHOUT_AES is the same but for ciphers). Vectors without a compile-time
// size (SVE, RVV) cannot be held in arrays; Arm processors with SVE run NEON, with products of bf16 where they have
// them.
#pragma once

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_NEON | HWY_ALL_SVE | HWY_RVV)
#ifdef LORICA_CPU_NATIVE  // for one machine alone, see LORICA_CPU_TARGETS in CMakeLists.txt
#define HWY_COMPILE_ONLY_STATIC
#ifdef __AVX512BF16__
#define HWY_WANT_AVX3_ZEN4  // which Highway leaves out otherwise, and with it products of bf16
#endif
#endif
