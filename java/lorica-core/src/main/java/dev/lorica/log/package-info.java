/**
 * Training runs written down: {@link dev.lorica.log.JsonlLog} for scripts, {@link dev.lorica.log.TensorBoardLog} for TensorBoard.
 * Both are listeners of {@link dev.lorica.train.Trainer}, and go on where the checkpoint is that a run is resumed from.
 */
package dev.lorica.log;
