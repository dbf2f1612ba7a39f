package dev.lorica.data;

import com.fasterxml.jackson.databind.node.ObjectNode;

/**
 * A record as its file has it.
 *
 * @param fields the fields
 * @param line   the line on which it begins, or its number where the file has no lines
 * @param where  which one that is, for messages: {@code train.jsonl, line 12 (record 7)}
 */
record Raw(ObjectNode fields, long line, String where) {}
