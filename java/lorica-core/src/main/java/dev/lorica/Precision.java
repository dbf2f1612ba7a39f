package dev.lorica;

import dev.lorica.internal.NativeModel;

/** What matrix products are computed in. */
public enum Precision {
    /** bf16 on cpu and cuda, f32 on reference. */
    AUTO(NativeModel.PRECISION_AUTO),
    /** Operands in bf16, sums and the residual stream in f32. */
    BF16(NativeModel.PRECISION_BF16),
    /** Everything in f32. */
    F32(NativeModel.PRECISION_F32),
    /** Everything in f64; only on the reference device. */
    F64(NativeModel.PRECISION_F64);

    final int code;

    Precision(int code) {
        this.code = code;
    }
}
