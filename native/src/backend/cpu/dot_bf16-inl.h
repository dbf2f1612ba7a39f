// LORICA_DOT_BF16: 1 where this target has an instruction that multiplies pairs of bf16. Included for each target anew,
// after <hwy/highway.h>, so there is no guard.
//
// HWY_NATIVE_DOT_BF16 says so too, but in Highway 1.2 it is decided for a target of Arm by what the one before has.
#undef LORICA_DOT_BF16
#if HWY_TARGET_IS_NEON
#if HWY_NEON_HAVE_F32_TO_BF16C
#define LORICA_DOT_BF16 1
#else
#define LORICA_DOT_BF16 0
#endif
#else
#define LORICA_DOT_BF16 HWY_NATIVE_DOT_BF16
#endif
