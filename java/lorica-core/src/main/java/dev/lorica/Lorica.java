package dev.lorica;

import dev.lorica.internal.NativeLibrary;
import dev.lorica.internal.Status;
import dev.lorica.internal.Text;
import dev.lorica.internal.c.lorica_device_info;
import dev.lorica.internal.c.lorica_model_params;
import org.bytedeco.javacpp.BytePointer;

/** The library itself. */
public final class Lorica {
    private Lorica() {}

    /** Version of the native library, {@code major.minor.patch}. */
    public static String version() {
        NativeLibrary.load();
        return Text.of(dev.lorica.internal.c.Lorica.lorica_version());
    }

    /**
     * What the device is and can do that a model would be loaded to.
     *
     * @throws dev.lorica.exceptions.LoricaException if it is not there; the message says why
     */
    public static DeviceInfo device(ModelConfig config) {
        NativeLibrary.load();
        try (BytePointer device = Text.copy("the device", config.device());
                lorica_model_params params = dev.lorica.internal.c.Lorica.lorica_model_default_params();
                lorica_device_info info = new lorica_device_info()) {
            params.device(device)
                    .precision(Model.precision(config.precision()))
                    .n_threads(config.threads());
            Status.check(dev.lorica.internal.c.Lorica.lorica_device_probe(params, info));
            return new DeviceInfo(
                    Text.of(info.name()), Text.of(info.detail()), info.available_memory(), info.peak_flops());
        }
    }
}
