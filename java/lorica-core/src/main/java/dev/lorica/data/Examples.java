package dev.lorica.data;

import java.util.List;

/** Examples by their number, and their lengths without them. */
interface Examples {
    int size();

    Example get(int index);

    /** Tokens of an example. */
    int length(int index);

    /** The least and the greatest weight of a token in those that have any; {@code null}: none has. */
    float[] weights();

    /** Those with the numbers in {@code chosen}, in that order. */
    default Examples select(int[] chosen) {
        Examples all = this;
        return new Examples() {
            @Override
            public int size() {
                return chosen.length;
            }

            @Override
            public Example get(int index) {
                return all.get(chosen[index]);
            }

            @Override
            public int length(int index) {
                return all.length(chosen[index]);
            }

            @Override
            public float[] weights() {
                return all.weights();
            }
        };
    }

    /** All of {@code parts}, one behind the other. */
    static Examples concat(List<Examples> parts) {
        int[] begins = new int[parts.size() + 1];
        for (int i = 0; i < parts.size(); i++) {
            begins[i + 1] = Math.addExact(begins[i], parts.get(i).size());
        }
        return new Examples() {
            private int part(int index) {
                int part = 0;
                while (index >= begins[part + 1]) {
                    part++;
                }
                return part;
            }

            @Override
            public int size() {
                return begins[parts.size()];
            }

            @Override
            public Example get(int index) {
                int part = part(index);
                return parts.get(part).get(index - begins[part]);
            }

            @Override
            public int length(int index) {
                int part = part(index);
                return parts.get(part).length(index - begins[part]);
            }

            @Override
            public float[] weights() {
                float[] all = null;
                for (Examples part : parts) {
                    float[] own = part.weights();
                    if (own != null) {
                        all = all == null ? own : new float[] {Math.min(all[0], own[0]), Math.max(all[1], own[1])};
                    }
                }
                return all;
            }
        };
    }
}
