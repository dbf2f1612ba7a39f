/**
 * What can go wrong. Everything extends {@link dev.lorica.exceptions.LoricaException}; catch that to show one line to a user,
 * or one of the others to react to it. Use of something closed is not among them: that is a mistake in a program, and throws
 * {@link IllegalStateException}.
 */
package dev.lorica.exceptions;
