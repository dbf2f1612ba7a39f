package dev.lorica;

import dev.lorica.internal.NativeLibrary;
import dev.lorica.internal.Text;

/** The library itself. */
public final class Lorica {
    private Lorica() {}

    /** Version of the native library, {@code major.minor.patch}. */
    public static String version() {
        NativeLibrary.load();
        return Text.of(dev.lorica.internal.c.Lorica.lorica_version());
    }
}
