/**
 * How good a model is: {@link dev.lorica.eval.Evaluator} measures the loss on a data set, the perplexity of a text as llama.cpp does
 * it, and answers against those expected.
 */
package dev.lorica.eval;
