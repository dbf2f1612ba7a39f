package example;

import dev.langchain4j.memory.chat.MessageWindowChatMemory;
import dev.langchain4j.model.chat.ChatModel;
import dev.langchain4j.service.AiServices;
import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.Generator;
import dev.lorica.langchain4j.LoricaChatModel;
import java.nio.file.Path;

/** An assistant of LangChain4j, which remembers the conversation, over a model and an adapter. */
public class Main {
    interface Assistant {
        String answer(String question);
    }

    public static void main(String[] args) {
        if (args.length < 3) {
            System.err.println("usage: MODEL.gguf ADAPTER-FOLDER QUESTION…");
            System.exit(2);
        }
        try (Model model = Model.load(Path.of(args[0]));
                Adapter adapter = Adapter.load(model, Path.of(args[1]));
                Generator generator = new Generator(model, adapter)) {
            ChatModel chat = LoricaChatModel.builder()
                    .generator(generator)
                    .config(GenerationConfig.greedy())
                    .build();
            Assistant assistant = AiServices.builder(Assistant.class)
                    .chatModel(chat)
                    .chatMemory(MessageWindowChatMemory.withMaxMessages(10))
                    .build();
            for (int i = 2; i < args.length; i++) {
                System.out.println(assistant.answer(args[i]));
            }
        }
    }
}
