/** The Java API, together with the native library for every platform that it is built for. */
@SuppressWarnings("requires-transitive-automatic")
module dev.lorica.platform {
    requires transitive dev.lorica;
    requires dev.lorica.engine.linux.x86_64;
}
