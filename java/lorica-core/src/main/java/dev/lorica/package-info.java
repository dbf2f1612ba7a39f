/**
 * Fine-tuning and running quantized Llama models.
 *
 * <p>Reading order:
 * <ol>
 *   <li>{@link dev.lorica.Model}: a GGUF file, opened; its {@link dev.lorica.Tokenizer}.</li>
 *   <li>{@link dev.lorica.Adapter}: what is trained, made as a {@link dev.lorica.LoraConfig} says; saved as a folder.</li>
 *   <li>{@link dev.lorica.Trainer}: the training loop, from a {@link dev.lorica.data.Dataset} as a
 *       {@link dev.lorica.TrainingConfig} says, with a {@link dev.lorica.TrainerListener};
 *       {@link dev.lorica.LearningRate} is its schedule, {@link dev.lorica.Evaluator} its measure,
 *       {@link dev.lorica.Checkpoint} what it goes on from; {@code dev.lorica.log} writes it down.</li>
 *   <li>{@link dev.lorica.Generator}: text from a model, sampled by {@link dev.lorica.Sampler} as a
 *       {@link dev.lorica.GenerationConfig} says.</li>
 * </ol>
 *
 * {@link dev.lorica.Lorica} says what there is to compute on: {@link dev.lorica.DeviceInfo}, {@link dev.lorica.CudaInfo}.
 *
 * <p>Everything that owns memory is {@link java.lang.AutoCloseable}; what is used after it was closed throws
 * {@link java.lang.IllegalStateException}. Nothing here prints.
 */
package dev.lorica;
