// What this processor can do beyond what Highway's dispatch covers: AMX, whose tile registers need the kernel's
// permission and a configuration per thread.
#pragma once

namespace lorica::cpu {

// True when the processor has AMX with bf16 products and the kernel lets this process use the tile registers.
// LORICA_ISA in the environment (avx512bf16, avx512, avx2, baseline) makes it false and limits Highway's targets, so
// that every path can be run on one machine.
bool has_amx_bf16();

// Loads the standard configuration into the calling thread: 8 tiles of 16 rows x 64 bytes. Only when
// has_amx_bf16().
void amx_configure_thread();
// Returns the tile registers to their initial state: a thread that keeps them dirty pays for saving 8 KiB at each
// context switch.
void amx_release_thread();

// Name of the best instruction set in use: "AMX-BF16", "AVX512-BF16", "AVX-512", "AVX2", …
const char * isa_name(bool bf16);

// Applies LORICA_ISA to Highway's run-time dispatch. Called once by make_cpu_backend.
void apply_isa_limit();

}  // namespace lorica::cpu
