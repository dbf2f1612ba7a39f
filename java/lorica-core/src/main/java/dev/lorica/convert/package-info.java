/**
 * Models made of models. {@link dev.lorica.convert.HuggingFaceConverter} makes a GGUF file of a Hugging Face folder: it reads
 * {@code config.json} and the safetensors, {@code HuggingFaceTokenizer} the vocabulary from {@code tokenizer.json}, SentencePiece's
 * {@code tokenizer.model} or BERT's {@code vocab.txt}. {@code Families} has a method for each family that says which tensors and keys its
 * GGUF files have; {@code HuggingFaceConfig} refuses every setting that none of them knows. {@link dev.lorica.convert.ModelFiles} folds adapters in and quantizes.
 */
package dev.lorica.convert;
