package dev.lorica.train;

/** Philox4x32-10 (Salmon et al. 2011), with which lorica and the scripts draw. */
final class Philox {
    private Philox() {}

    /** The first {@code n} numbers of the stream. */
    static int[] numbers(long seed, int n) {
        int[] numbers = new int[n];
        for (int block = 0; 4 * block < n; block++) {
            int[] c = {block, 0, 0, 0};
            int k0 = (int) seed;
            int k1 = (int) (seed >>> 32);
            for (int round = 0; round < 10; round++) {
                long p0 = 0xD2511F53L * (c[0] & 0xffffffffL);
                long p1 = 0xCD9E8D57L * (c[2] & 0xffffffffL);
                c = new int[] {(int) (p1 >>> 32) ^ c[1] ^ k0, (int) p1, (int) (p0 >>> 32) ^ c[3] ^ k1, (int) p0};
                k0 += 0x9E3779B9;
                k1 += 0xBB67AE85;
            }
            for (int i = 0; i < 4 && 4 * block + i < n; i++) {
                numbers[4 * block + i] = c[i];
            }
        }
        return numbers;
    }
}
