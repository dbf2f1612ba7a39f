/**
 * Training. A {@link dev.lorica.train.Trainer} runs as a {@link dev.lorica.train.TrainingConfig} says and tells
 * {@link dev.lorica.train.TrainerListener}s about it; {@link dev.lorica.train.LearningRate} is its schedule, a
 * {@link dev.lorica.train.Checkpoint} what it goes on from, and {@link dev.lorica.train.TrainingResult} what became of it. What a run
 * needs is known before: {@link dev.lorica.train.TrainingPlan}, {@link dev.lorica.train.MemoryPlan}.
 */
package dev.lorica.train;
