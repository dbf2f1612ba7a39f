package dev.lorica.data;

import dev.lorica.Tokenizer;
import java.nio.file.Path;

/** The program that {@link LargeFileTest} runs in a JVM with little memory. */
final class LargeFile {
    private LargeFile() {}

    public static void main(String[] args) {
        try (Tokenizer tokenizer = Tokenizer.load(Path.of(args[0]))) {
            ExampleStore store = new ExampleStore();
            TokenizedDataset data =
                    TokenizedDataset.of(Dataset.load(Path.of(args[1])), tokenizer, DataConfig.ofMaxLength(256), store);
            long tokens = 0;
            int batches = 0;
            for (Batch batch : Packer.shuffled(data, 64, 42, 0)) {
                tokens += batch.tokenCount();
                batches++;
            }
            System.out.println("examples " + data.size() + ", tokens "
                    + data.report().tokens() + " = " + tokens + ", batches " + batches + ", in a file "
                    + store.isSpilled() + ", heap " + (Runtime.getRuntime().maxMemory() >> 20) + " MiB");
            for (int i = 0; i < 5; i++) {
                System.out.println(tokenizer.decode(
                        data.examples().get(data.size() / 5 * i).ids(), true));
            }
        } catch (DataException e) {
            System.out.println("error: " + e.getMessage());
        }
    }
}
