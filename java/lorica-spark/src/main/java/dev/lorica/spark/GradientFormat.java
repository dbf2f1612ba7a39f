package dev.lorica.spark;

/** As what gradients go over the network. */
public enum GradientFormat {
    /** As they are: 4 bytes each. */
    F32(4),
    /**
     * bfloat16: 2 bytes each. Every sum of the tree is rounded, on executors and on the driver alike, so that the result does not
     * depend on which sums go over the network.
     */
    BF16(2);

    final int bytes;

    GradientFormat(int bytes) {
        this.bytes = bytes;
    }
}
