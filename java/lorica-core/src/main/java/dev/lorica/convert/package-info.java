/**
 * Makes GGUF models from Hugging Face folders: {@link dev.lorica.convert.HuggingFaceConverter} reads {@code config.json} and the
 * safetensors, {@code HuggingFaceTokenizer} the vocabulary from {@code tokenizer.json} or SentencePiece's
 * {@code tokenizer.model}.
 */
package dev.lorica.convert;
