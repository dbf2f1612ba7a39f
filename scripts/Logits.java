import static dev.lorica.internal.c.Lorica.*;

import dev.lorica.internal.NativeLibrary;
import dev.lorica.internal.Structs;
import dev.lorica.internal.c.lorica_adapter;
import dev.lorica.internal.c.lorica_kv_cache;
import dev.lorica.internal.c.lorica_model;
import dev.lorica.internal.c.lorica_model_info;
import dev.lorica.internal.c.lorica_model_params;
import java.io.DataOutputStream;
import java.io.FileOutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;

/**
 * For check_peft.py: the logits of every token, in f32, as little-endian floats in a file.
 *
 * <pre>java -cp 'lorica-cli.jar:lib/*' Logits.java MODEL.gguf ADAPTER.gguf|none OUTPUT TOKEN,TOKEN,…</pre>
 */
class Logits {
    public static void main(String[] args) throws Exception {
        NativeLibrary.load();
        lorica_model model = new lorica_model();
        var params = Structs.defaults(
                        lorica_model_params::new,
                        lorica_model_params::struct_size,
                        dev.lorica.internal.c.Lorica::lorica_model_default_params)
                .precision(LORICA_PRECISION_F32);
        check(lorica_model_load(args[0], params, model));
        lorica_model_info info = Structs.sized(lorica_model_info::new, lorica_model_info::struct_size);
        check(lorica_model_get_info(model, info));
        lorica_adapter adapter = null;
        if (!args[1].equals("none")) {
            adapter = new lorica_adapter();
            check(lorica_adapter_load(model, args[1], adapter));
        }
        int[] tokens = Arrays.stream(args[3].split(",")).mapToInt(Integer::parseInt).toArray();
        lorica_kv_cache cache = new lorica_kv_cache();
        check(lorica_kv_cache_create(model, adapter, tokens.length, cache));
        float[] logits = new float[tokens.length * info.n_vocab()];
        check(lorica_kv_cache_eval(cache, tokens, tokens.length, true, logits));
        ByteBuffer bytes = ByteBuffer.allocate(4 * logits.length).order(ByteOrder.LITTLE_ENDIAN);
        bytes.asFloatBuffer().put(logits);
        try (DataOutputStream out = new DataOutputStream(new FileOutputStream(args[2]))) {
            out.write(bytes.array());
        }
    }

    private static void check(int status) {
        if (status != LORICA_OK) {
            throw new IllegalStateException(lorica_last_error().getString());
        }
    }
}
