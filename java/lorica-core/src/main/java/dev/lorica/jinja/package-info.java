/**
 * The part of the Jinja language that chat templates are written in, with Python's idea of values, so that a template renders
 * to the very text that transformers makes of it.
 *
 * <p>Reading order: {@link dev.lorica.jinja.JinjaTemplate} is what others use; {@code Lexer} cuts the source into tokens and
 * knows the rules of white space; {@code Parser} makes {@code Expression}s and {@code Statement}s of them; {@code Scope} is
 * where these find variables and put text; {@code Values} is Python's arithmetic, comparison and text form; {@code Filters},
 * {@code Tests} and {@code Methods} are what stands behind {@code |}, {@code is} and {@code .}.
 *
 * <p>A template comes with a model from a stranger. It can read what it is given and produce text, nothing else: there are no
 * files, no classes, no reflection, nothing is included, and steps, depth and length of the text are bounded.
 */
package dev.lorica.jinja;
