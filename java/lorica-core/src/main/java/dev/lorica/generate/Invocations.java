package dev.lorica.generate;

import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.ScaledAdapter;
import java.util.Collections;
import java.util.List;
import java.util.Set;
import java.util.WeakHashMap;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Says of each activated LoRA, once, that a prompt leaves it without effect. */
final class Invocations {
    private static final Logger LOG = LoggerFactory.getLogger(Invocations.class);

    private final Set<Adapter> said = Collections.synchronizedSet(Collections.newSetFromMap(new WeakHashMap<>()));

    void look(int[] prompt, List<ScaledAdapter> adapters) {
        for (ScaledAdapter one : adapters) {
            Adapter adapter = one.adapter();
            if (!adapter.isInvokedBy(prompt) && said.add(adapter)) {
                LOG.warn(
                        "the prompt has not the invocation {} of the adapter, which is inactive without it: the base"
                                + " answers",
                        adapter.invocation());
            }
        }
    }
}
