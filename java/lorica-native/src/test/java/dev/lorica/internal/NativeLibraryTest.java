package dev.lorica.internal;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

/** The reasons are what the dynamic linkers of glibc and musl really say. */
class NativeLibraryTest {
    @Test
    void loadsAndLoadsAgain() {
        NativeLibrary.load();
        NativeLibrary.load();
    }

    @Test
    void saysWhichGlibcIsMissing() {
        String reason =
                "/home/u/.javacpp/cache/liblorica.so: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found"
                        + " (required by /home/u/.javacpp/cache/liblorica.so)";

        assertThat(NativeLibrary.explain(reason))
                .startsWith(
                        "the native library needs glibc with GLIBC_2.38, which this system does not have; use a newer system")
                .contains("/home/u/.javacpp/cache/liblorica.so");
    }

    @Test
    void saysWhichLibraryIsMissing() {
        String reason = "/tmp/libjnilorica.so: libhwy.so.1: cannot open shared object file: No such file or directory";

        assertThat(NativeLibrary.explain(reason))
                .startsWith("the native library needs libhwy.so.1, which this system does not");
    }

    @Test
    void recognizesMusl() {
        String reason = "Error loading shared library ld-linux-x86-64.so.2: No such file or directory (needed by"
                + " /tmp/libjnilorica.so)";

        assertThat(NativeLibrary.explain(reason))
                .startsWith("the native library needs glibc")
                .contains("musl");
    }

    @Test
    void recognizesAFolderThatForbidsPrograms() {
        String reason = "/tmp/libjnilorica.so: failed to map segment from shared object: Operation not permitted";

        assertThat(NativeLibrary.explain(reason))
                .contains("-Dorg.bytedeco.javacpp.cachedir")
                .contains("/tmp/libjnilorica.so");
    }

    @Test
    void givesTheReasonWhenItKnowsNothingBetter() {
        assertThat(NativeLibrary.explain("/tmp/libjnilorica.so: file too short"))
                .endsWith(": /tmp/libjnilorica.so: file too short");
    }
}
