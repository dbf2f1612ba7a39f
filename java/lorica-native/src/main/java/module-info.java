/** The native library, and its C ABI in Java. Of use to {@code dev.lorica} alone, which shows its exceptions to everybody. */
@SuppressWarnings("module")
module dev.lorica.engine {
    requires transitive org.bytedeco.javacpp;
    requires org.slf4j;

    exports dev.lorica.exceptions;
    exports dev.lorica.internal to
            dev.lorica;
    exports dev.lorica.internal.c to
            org.bytedeco.javacpp;
    exports dev.lorica.internal.c.presets to
            org.bytedeco.javacpp;
}
