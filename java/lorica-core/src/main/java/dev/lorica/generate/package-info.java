/**
 * Text from a model: a {@link dev.lorica.generate.Generator} makes {@link dev.lorica.generate.Generation}s, sampled by
 * {@link dev.lorica.generate.Sampler} as a {@link dev.lorica.generate.GenerationConfig} says. Of many texts, a
 * {@link dev.lorica.generate.BatchGenerator} makes those of one caller, and a {@link dev.lorica.generate.GenerationService} those of
 * many, who come and go.
 */
package dev.lorica.generate;
