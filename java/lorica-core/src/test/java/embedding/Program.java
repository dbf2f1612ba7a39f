package embedding;

import dev.lorica.Model;
import java.nio.file.Path;

/** Uses the library from a package that is not the library's own: {@code dev.lorica.ModulePathTest} runs it. */
public final class Program {
    private Program() {}

    public static void main(String[] arguments) {
        try (Model model = Model.load(Path.of(arguments[0]))) {
            System.out.println(Model.class.getModule());
            System.out.println(model.info().architecture() + " "
                    + model.tokenizer().decode(model.tokenizer().encode("a module", false, false)));
        }
    }
}
