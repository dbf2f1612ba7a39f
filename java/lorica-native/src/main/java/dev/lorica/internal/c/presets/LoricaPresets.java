package dev.lorica.internal.c.presets;

import org.bytedeco.javacpp.annotation.Platform;
import org.bytedeco.javacpp.annotation.Properties;
import org.bytedeco.javacpp.tools.Info;
import org.bytedeco.javacpp.tools.InfoMap;
import org.bytedeco.javacpp.tools.InfoMapper;

/**
 * How JavaCPP turns {@code lorica.h}, and the {@code status.h} that it includes, into the Java of {@code dev.lorica.internal.c}. That Java is checked in;
 * {@code mvn -pl java/lorica-native -Pgenerate-bindings generate-sources} writes it anew after a change of the header.
 *
 * <p>The preloaded libraries are those that {@code liblorica.so} needs and that the jar carries beside it. OpenMP's runtime is there
 * for ggml alone, which is built with it where Debian builds it; the library has it make no threads.
 */
@Properties(
        value =
                @Platform(
                        value = {"linux-x86_64", "linux-arm64"},
                        include = {"lorica/status.h", "lorica/lorica.h"},
                        library = "jnilorica",
                        link = "lorica",
                        preload = {"gomp@.1", "hwy@.1", "dnnl@.3", "ggml-base@.0"}),
        target = "dev.lorica.internal.c",
        global = "dev.lorica.internal.c.Lorica")
public class LoricaPresets implements InfoMapper {
    @Override
    public void map(InfoMap infoMap) {
        infoMap.put(new Info("LORICA_API").cppTypes().annotations());
        infoMap.put(new Info("LORICA_H").cppTypes().define(false));
    }
}
