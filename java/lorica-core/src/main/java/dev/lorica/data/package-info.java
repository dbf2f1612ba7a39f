/**
 * From files of questions, conversations and texts to packed batches of tokens.
 *
 * <p>Reading order, which is also the order in which data flows:
 * <ol>
 *   <li>{@link dev.lorica.data.Dataset}: the {@link dev.lorica.data.DataRecord}s of a file, which need not fit in memory.
 *       {@code DataFile} finds out what a file is, a {@code RecordReader} reads it; which of its fields are used is
 *       {@link dev.lorica.data.DataFields}, found by itself or named by {@link dev.lorica.data.FieldNames}.</li>
 *   <li>{@link dev.lorica.data.PromptTemplate}: a {@link dev.lorica.data.TextTemplate} or a
 *       {@link dev.lorica.data.ChatTemplate} turns a record into {@link dev.lorica.data.Segment}s of text, each of which is
 *       trained on or not. The mask is born here, where it is known; nothing later searches for it. How that is done for
 *       conversations, {@code ChatFormat} says.</li>
 *   <li>{@link dev.lorica.data.TokenizedDataset}: segments become {@link dev.lorica.data.Example}s (ids and trained
 *       flags) by the {@link dev.lorica.data.ExampleEncoder}, BOS and EOS are put where they belong, over-long examples are
 *       dealt with as {@link dev.lorica.data.Overflow} says, and {@link dev.lorica.data.DataReport} says what became of it
 *       all. {@code ExampleStore} keeps the tokens, in memory or in a file.</li>
 *   <li>{@link dev.lorica.data.Packer}: examples, in the order of an epoch, become {@link dev.lorica.data.Batch}es without a
 *       single padding token.</li>
 * </ol>
 */
package dev.lorica.data;
