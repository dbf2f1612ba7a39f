package dev.lorica.serve;

import com.fasterxml.jackson.databind.JsonNode;
import dev.lorica.Model;

/** Token ids of a request. */
final class Ids {
    private Ids() {}

    static int[] of(Fields fields, String name, JsonNode given, Model model) {
        int vocabulary = model.info().vocabSize();
        if (!given.isArray() || given.isEmpty()) {
            throw fields.wrong(name, given, "a list of token ids, one at least");
        }
        int[] ids = new int[given.size()];
        for (int i = 0; i < ids.length; i++) {
            JsonNode id = given.get(i);
            if (!id.isIntegralNumber() || !id.canConvertToInt() || id.asInt() < 0 || id.asInt() >= vocabulary) {
                throw fields.wrong(name, id, "a list of token ids, from 0 to " + (vocabulary - 1));
            }
            ids[i] = id.asInt();
        }
        return ids;
    }
}
