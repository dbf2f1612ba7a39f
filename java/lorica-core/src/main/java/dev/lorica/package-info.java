/**
 * Fine-tuning and running quantized Llama models.
 *
 * <p>Reading order:
 * <ol>
 *   <li>{@link dev.lorica.Model}: a GGUF file, opened; its {@link dev.lorica.Tokenizer}.</li>
 *   <li>{@link dev.lorica.data}: from data files to batches of tokens.</li>
 *   <li>{@link dev.lorica.adapter}: what is trained, made as a {@link dev.lorica.adapter.LoraConfig} says; saved as a folder.</li>
 *   <li>{@link dev.lorica.generate}: text from a model.</li>
 *   <li>{@link dev.lorica.eval}: how good it is.</li>
 *   <li>{@link dev.lorica.train}: the training loop; {@link dev.lorica.log} writes it down.</li>
 *   <li>{@link dev.lorica.convert}: models made of models. {@link dev.lorica.hub}: names on Hugging Face's hub.
 *       {@link dev.lorica.files}: what is inside a file.</li>
 * </ol>
 *
 * {@link dev.lorica.Lorica} says what there is to compute on: {@link dev.lorica.DeviceInfo}, {@link dev.lorica.CudaInfo}.
 *
 * <p>Everything that owns memory is {@link java.lang.AutoCloseable}; what is used after it was closed throws
 * {@link java.lang.IllegalStateException}. Nothing here prints.
 */
package dev.lorica;
