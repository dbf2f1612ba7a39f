package example;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.data.ExampleEncoder;
import dev.lorica.data.PromptTemplate;
import dev.lorica.generate.BatchGenerator.Request;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.GenerationService;
import java.nio.file.Path;
import java.util.List;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;

/** A service that answers with an adapter, many callers at once: GET /answer?question=… */
@SpringBootApplication
public class Application {
    public static void main(String[] args) {
        SpringApplication.run(Application.class, args);
    }

    // Spring closes them, in the opposite order.

    @Bean
    Model model(@Value("${lorica.model}") String file) {
        return Model.load(Path.of(file));
    }

    @Bean
    Adapter adapter(Model model, @Value("${lorica.adapter}") String folder) {
        return Adapter.load(model, Path.of(folder));
    }

    @Bean
    GenerationService generation(Model model) {
        return new GenerationService(model, GenerationService.Config.defaults());
    }

    /** What was asked, and the answer. */
    record Answer(String question, String answer) {}

    @RestController
    static class Answers {
        private final GenerationService generation;
        private final List<ScaledAdapter> adapters;
        private final ExampleEncoder encoder;

        Answers(Model model, Adapter adapter, GenerationService generation) {
            this.generation = generation;
            adapters = List.of(new ScaledAdapter(adapter, 1));
            PromptTemplate template = adapter.template() == null ? PromptTemplate.INSTRUCTION : adapter.template();
            encoder = new ExampleEncoder(model.tokenizer(), template, false);
        }

        @GetMapping("/answer")
        Answer answer(@RequestParam String question) throws InterruptedException {
            Request request = new Request(encoder.prompt(question, ""), GenerationConfig.greedy());
            return new Answer(question, generation.submit(request, adapters).result().text().strip());
        }
    }
}
