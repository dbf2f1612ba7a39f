/**
 * Training runs as jobs: started as processes of their own, one at a time, and kept in a folder, so that they outlive the pages that look
 * at them and the server that started them. Read {@link dev.lorica.serve.runs.Runs} first, then {@link dev.lorica.serve.runs.Run} and
 * {@link dev.lorica.serve.runs.RunFeed}; {@link dev.lorica.serve.runs.RunFolders} says what may be read and written, and
 * {@link dev.lorica.serve.runs.RunProgram} is the program that does the work.
 */
package dev.lorica.serve.runs;
