package dev.lorica;

/** What matrix products are computed in. */
public enum Precision {
    /** bf16 on cpu and cuda, f32 on reference. */
    AUTO,
    /** Operands in bf16, sums and the residual stream in f32. */
    BF16,
    /** Everything in f32. */
    F32,
    /** Everything in f64; only on the reference device. */
    F64
}
