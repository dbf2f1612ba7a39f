/**
 * Models made of models. {@link dev.lorica.convert.HuggingFaceConverter} makes a GGUF file of a Hugging Face folder: it reads
 * {@code config.json} and the safetensors, {@code HuggingFaceTokenizer} the vocabulary from {@code tokenizer.json} or SentencePiece's
 * {@code tokenizer.model}. {@link dev.lorica.convert.ModelFiles} folds adapters in and quantizes.
 */
package dev.lorica.convert;
