// What AMX does with its eight tiles of 16 rows x 64 bytes, after amx_configure_thread() and where has_amx_bf16(). The
// numbers of the tiles are template arguments; in assembly, so that they can stand in a function compiled for any
// target.
#pragma once

#if defined(__x86_64__)

#include <cstdint>

namespace lorica::cpu {

// Eight instructions that do nothing follow each of the functions below but zero_tile(). Where the other thread of the
// core multiplies tiles as well, tiles that are loaded and multiplied in an unbroken row get 0.4 of the unit, and
// spread ones 0.7; with the core to themselves both are as fast (Sapphire Rapids, see native/bench/NOTES.md).
inline void spread_tiles() { asm volatile(".rept 8\n\tnop\n\t.endr"); }

template <int Tile> inline void zero_tile() { asm volatile("tilezero %%tmm%c0" : : "i"(Tile)); }

// 16 rows of 64 bytes, `stride` bytes apart.
template <int Tile> inline void load_tile(const void * from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(Tile) : "memory");
    spread_tiles();
}

// The same past the first-level cache, which keeps what it holds.
template <int Tile> inline void stream_tile(const void * from, int64_t stride) {
    asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(Tile) : "memory");
    spread_tiles();
}

template <int Tile> inline void store_tile(void * to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(Tile) : "memory");
    spread_tiles();
}

// Sums += A B: 16 x 16 floats, 16 x 32 bf16, and 32 x 16 bf16 with the two of a pair of rows side by side.
template <int Sums, int A, int B> inline void multiply_tiles() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sums), "i"(A), "i"(B));
    spread_tiles();
}

// One product of tiles, which hold nothing between two calls of a kernel. A unit that has multiplied nothing for 370 ns
// goes to sleep and takes 260 ns to wake up: whoever works with vectors between two products calls this in between,
// every few hundred cycles.
inline void keep_tiles_awake() { asm volatile("tdpbf16ps %tmm2, %tmm1, %tmm0"); }

}  // namespace lorica::cpu

#else

namespace lorica::cpu {

// Never called: has_amx_bf16() is false.
inline void keep_tiles_awake() {}

}  // namespace lorica::cpu

#endif
