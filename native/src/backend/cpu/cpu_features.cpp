#include "backend/cpu/cpu_features.h"

#include <hwy/targets.h>

#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <string_view>

#include "backend/cpu/gemm_kernels.h"
#include "common/error.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#define LORICA_AMX_POSSIBLE 1
#endif

namespace lorica::cpu {

namespace {

std::string_view isa_limit() {
    const char * value = std::getenv("LORICA_ISA");
    return value ? value : "";
}

#ifdef LORICA_AMX_POSSIBLE
bool request_amx() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
    const bool tile = edx & (1u << 24), bf16 = edx & (1u << 22);
    // What surrounds the tiles is written in the vector instructions of the processors that have had them so far.
    if (!tile || !bf16 || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl") ||
        !__builtin_cpu_supports("avx512bf16")) {
        return false;
    }
    constexpr long arch_req_xcomp_perm = 0x1023, xfeature_xtiledata = 18;
    return syscall(SYS_arch_prctl, arch_req_xcomp_perm, xfeature_xtiledata) == 0;
}

// Intel SDM volume 1, table 18-2: the operand of LDTILECFG.
struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);
#endif

}  // namespace

bool has_amx_bf16() {
#ifdef LORICA_AMX_POSSIBLE
    static const bool available = isa_limit().empty() && request_amx();
    return available;
#else
    return false;
#endif
}

#ifdef LORICA_AMX_POSSIBLE
__attribute__((target("amx-tile"))) void amx_configure_thread() {
    static constexpr TileConfig config;
    _tile_loadconfig(&config);
}
__attribute__((target("amx-tile"))) void amx_release_thread() { _tile_release(); }
#else
void amx_configure_thread() {}
void amx_release_thread() {}
#endif

void apply_isa_limit() {
    static std::once_flag once;
    std::call_once(once, [] {
        const std::string_view limit = isa_limit();
#ifdef LORICA_CPU_NATIVE
        if (!(hwy::SupportedTargets() & kernel_target())) {
            fail(LORICA_ERROR_UNSUPPORTED, "this library was compiled for the processor of another machine, with ",
                 isa_name(true), ": compile it anew here, or with -DLORICA_CPU_TARGETS=all for every processor");
        }
        if (!limit.empty() && limit != "avx512bf16") {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "LORICA_ISA is '", limit,
                 "', and this library was compiled for one instruction set: -DLORICA_CPU_TARGETS=all compiles all");
        }
        return;
#endif
        if (limit.empty()) return;
#if HWY_ARCH_X86
        const int64_t baseline = HWY_SSE2 | HWY_SSSE3 | HWY_SSE4;
        if (limit == "avx512") {
            hwy::DisableTargets(HWY_AVX3_ZEN4 | HWY_AVX3_SPR | HWY_AVX3_DL);
        } else if (limit == "avx512bf16") {
            // everything but AMX
        } else if (limit == "avx2") {
            hwy::DisableTargets(~(baseline | HWY_AVX2));
        } else if (limit == "baseline") {
            hwy::DisableTargets(~baseline);
        } else {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "LORICA_ISA is '", limit,
                 "'; it takes avx512bf16, avx512, avx2 or baseline, or is left unset for the best");
        }
#elif HWY_ARCH_ARM_A64
        if (limit != "baseline") {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "LORICA_ISA is '", limit,
                 "'; on Arm it takes baseline, or is left unset for the best");
        }
        hwy::DisableTargets(~HWY_NEON_WITHOUT_AES);
#endif
    });
}

const char * isa_name(bool bf16) {
    if (bf16 && has_amx_bf16()) return "AMX-BF16";
    // Asked of a kernel: hwy::SupportedTargets() would say what DisableTargets has left, and undo it for the calls that
    // follow.
    const int64_t target = kernel_target();
#if HWY_ARCH_X86
    if (target == HWY_AVX3_SPR || target == HWY_AVX3_ZEN4) return bf16 ? "AVX512-BF16" : "AVX-512";
    if (target == HWY_AVX3) return "AVX-512";
#endif
    return hwy::TargetName(target);
}

}  // namespace lorica::cpu
