/**
 * Text from a model: a {@link dev.lorica.generate.Generator} makes {@link dev.lorica.generate.Generation}s, sampled by
 * {@link dev.lorica.generate.Sampler} as a {@link dev.lorica.generate.GenerationConfig} says.
 */
package dev.lorica.generate;
