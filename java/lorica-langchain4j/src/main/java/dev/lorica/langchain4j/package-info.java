/**
 * LangChain4j's interfaces over a model on this machine: {@link dev.lorica.langchain4j.LoricaChatModel} answers whole,
 * {@link dev.lorica.langchain4j.LoricaStreamingChatModel} piece by piece, both with the adapter that a request names;
 * {@link dev.lorica.langchain4j.LoricaEmbeddingModel} makes vectors with an encoder.
 *
 * <p>What is not there is refused with {@link dev.langchain4j.exception.UnsupportedFeatureException}: tools, answers in JSON, images
 * and sounds.
 */
package dev.lorica.langchain4j;
