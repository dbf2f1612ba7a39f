package dev.lorica.data;

import dev.lorica.TokenizerInfo;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import java.io.Serializable;

/**
 * What stands around a prompt, the same in training and in generation: a {@link TextTemplate}, which is a text with places in
 * it, or a {@link ChatTemplate}, which is for conversations.
 */
public sealed interface PromptTemplate extends Serializable permits TextTemplate, ChatTemplate {

    /**
     * {@code ### Instruction:}, the prompt, {@code ### Response:}, the response; with {@code ### Input:} where there is
     * one.
     */
    TextTemplate INSTRUCTION = new TextTemplate(
            "instruction",
            "### Instruction:\n{instruction}\n\n### Response:\n",
            "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
            false);

    /** Nothing around it: prompt and response follow each other as they are. */
    TextTemplate PLAIN = new TextTemplate("plain", "{instruction}", "{instruction}\n\n{input}", true);

    /** {@return what people call it} */
    String name();

    /**
     * {@return the text template of this name}
     *
     * @param name {@code plain} or {@code instruction}
     * @throws dev.lorica.exceptions.InvalidArgumentException naming those that there are
     */
    static TextTemplate named(String name) {
        Arguments.given(name, "name");
        return switch (name) {
            case "instruction" -> INSTRUCTION;
            case "plain" -> PLAIN;
            default ->
                throw new InvalidArgumentException(
                        "no template is called \"" + name + "\"; there are instruction and plain");
        };
    }

    /**
     * {@return the template that a data set asks for} It is the model's own chat template for conversations; {@link #PLAIN} for plain texts
     * and for prompts that all carry {@code ### Response:} already, so that nothing is wrapped twice; otherwise {@link #INSTRUCTION}.
     *
     * @param data  the data set
     * @param model what the model's file says of its vocabulary
     * @throws DataException if the data are conversations and the model has no chat template
     */
    static PromptTemplate forDataset(Dataset data, TokenizerInfo model) {
        Arguments.given(data, "data");
        Arguments.given(model, "model");
        if (data.isConversation()) {
            return ChatTemplate.of(model)
                    .orElseThrow(() -> new DataException((data.name().isEmpty() ? "the data set" : data.name())
                            + " holds conversations, and the model has no chat"
                            + " template; choose a chat template: " + ChatTemplate.namesInWords()));
        }
        if (data.fields().isText() || data.fields().isPairs() && data.fields().prompt() == null) {
            return PLAIN;
        }
        return data.allMatch(record -> record.prompt().contains("### Response:")) ? PLAIN : INSTRUCTION;
    }
}
