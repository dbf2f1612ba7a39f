/**
 * From a file of questions and answers to packed batches of tokens.
 *
 * <p>Reading order, which is also the order in which data flows:
 * <ol>
 *   <li>{@link dev.lorica.data.Dataset}: reads a JSON or JSONL file into {@link dev.lorica.data.DataRecord}s; which
 *       fields it uses is {@link dev.lorica.data.DataFields}, found by itself or named.</li>
 *   <li>{@link dev.lorica.data.PromptTemplate}: turns a record into {@link dev.lorica.data.Segment}s of text, each of
 *       which is trained on or not. The mask is born here, where it is known; nothing later searches for it.</li>
 *   <li>{@link dev.lorica.data.TokenizedDataset}: segments become {@link dev.lorica.data.Example}s (ids and trained
 *       flags), BOS and EOS are put where they belong, over-long examples are dealt with as {@link
 *       dev.lorica.data.Overflow} says, and {@link dev.lorica.data.DataReport} says what became of it all.</li>
 *   <li>{@link dev.lorica.data.Packer}: examples, in the order of an epoch, become {@link dev.lorica.Batch}es without a
 *       single padding token.</li>
 * </ol>
 */
package dev.lorica.data;
