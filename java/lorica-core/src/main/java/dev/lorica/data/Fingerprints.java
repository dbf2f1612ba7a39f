package dev.lorica.data;

import java.util.Arrays;

/** Remembers what examples were seen, by 64 bits of each, as long as they fit well in memory. */
final class Fingerprints {
    private static final long MOST = Math.min(1L << 27, Runtime.getRuntime().maxMemory() / 16 / Long.BYTES);

    private long[] table = new long[1 << 10];
    private int size;
    private long duplicates;
    private boolean full;

    void add(Example example) {
        if (full) {
            return;
        }
        long fingerprint = fingerprint(example);
        if (insert(table, fingerprint)) {
            size++;
            if (2L * size > table.length) {
                grow();
            }
        } else {
            duplicates++;
        }
    }

    private void grow() {
        if (2L * table.length > MOST) {
            full = true;
            table = new long[0];
            return;
        }
        long[] larger = new long[2 * table.length];
        Arrays.stream(table)
                .filter(fingerprint -> fingerprint != 0)
                .forEach(fingerprint -> insert(larger, fingerprint));
        table = larger;
    }

    private static boolean insert(long[] table, long fingerprint) {
        int at = (int) fingerprint & table.length - 1;
        while (table[at] != 0) {
            if (table[at] == fingerprint) {
                return false;
            }
            at = at + 1 & table.length - 1;
        }
        table[at] = fingerprint;
        return true;
    }

    /** Examples that were seen before; −1: there were too many to tell. */
    long duplicates() {
        return full ? -1 : duplicates;
    }

    /** Never 0. Each step is that of SplitMix64, a bijection that leaves no bit alone. */
    private static long fingerprint(Example example) {
        long hash = example.length();
        for (int i = 0; i < example.length(); i++) {
            hash = (hash ^ (2L * example.ids()[i] + (example.trained()[i] ? 1 : 0))) + 0x9e3779b97f4a7c15L;
            hash = (hash ^ hash >>> 30) * 0xbf58476d1ce4e5b9L;
            hash = (hash ^ hash >>> 27) * 0x94d049bb133111ebL;
            hash ^= hash >>> 31;
        }
        return hash == 0 ? 1 : hash;
    }
}
