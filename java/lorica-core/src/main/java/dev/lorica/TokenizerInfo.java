package dev.lorica;

/**
 * What a vocabulary says about itself.
 *
 * @param model        {@code llama} (SentencePiece-style), {@code gpt2} (byte-level BPE) or {@code bert} (WordPiece)
 * @param pre          pre-tokenizer of byte-level BPE, {@code ""} where there is none
 * @param chatTemplate Jinja source as stored in the file, {@code null} when it has none
 * @param vocabSize    number of token ids
 * @param bos          id of the token that begins a text, −1 where there is none; so too the following
 * @param eos          id of the token that ends a text
 * @param eot          id of the token that ends a turn
 * @param unk          id of the unknown token
 * @param pad          id of the padding token
 * @param addBos       whether {@code addSpecial} puts {@code bos} in front
 * @param addEos       whether {@code addSpecial} puts {@code eos} at the end
 */
public record TokenizerInfo(
        String model,
        String pre,
        String chatTemplate,
        int vocabSize,
        int bos,
        int eos,
        int eot,
        int unk,
        int pad,
        boolean addBos,
        boolean addEos) {}
