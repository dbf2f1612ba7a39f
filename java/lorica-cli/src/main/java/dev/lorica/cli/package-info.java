/**
 * The command {@code lorica}.
 *
 * <p>Reading order: {@link dev.lorica.cli.LoricaCli} (the program, its exit codes, how errors are shown), then one
 * class per command: {@link dev.lorica.cli.TrainCommand}, {@link dev.lorica.cli.GenerateCommand}, {@link
 * dev.lorica.cli.InfoCommand}, {@link dev.lorica.cli.TokenizeCommand}. Options are grouped in the {@code *Options}
 * classes; what is printed goes through {@link dev.lorica.cli.Terminal}.
 */
package dev.lorica.cli;
