/**
 * Texts that keep to a form: which tokens may come next. {@link dev.lorica.grammar.JsonSchema} makes a {@link dev.lorica.grammar.Grammar}
 * of bytes, and {@link dev.lorica.grammar.TokenMask} finds the tokens of a vocabulary that go on with it.
 */
package dev.lorica.grammar;
