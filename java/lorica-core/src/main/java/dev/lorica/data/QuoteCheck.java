package dev.lorica.data;

import java.io.FilterReader;
import java.io.IOException;
import java.io.Reader;

/**
 * Passes a table on and watches its quotation marks (RFC 4180): a mark that begins a field and is never closed would make one
 * field of all that follows, and one that is closed in the middle of a field ends another than was meant.
 */
final class QuoteCheck extends FilterReader {
    private enum State {
        FIELD_BEGINS,
        PLAIN,
        QUOTED,
        /** Behind a quotation mark inside a quoted field: its end, or half of a mark that is meant. */
        QUOTE_IN_QUOTED
    }

    /** Which line is wrong. */
    static final class QuoteException extends IOException {
        private static final long serialVersionUID = 1L;

        QuoteException(String message) {
            super(message);
        }
    }

    private final char separator;
    private State state = State.FIELD_BEGINS;
    private long line = 1;
    private long opened;
    private boolean afterReturn;

    QuoteCheck(Reader in, char separator) {
        super(in);
        this.separator = separator;
    }

    @Override
    public int read() throws IOException {
        char[] one = new char[1];
        return read(one, 0, 1) < 0 ? -1 : one[0];
    }

    @Override
    public int read(char[] buffer, int offset, int length) throws IOException {
        int count = super.read(buffer, offset, length);
        for (int i = offset; i < offset + count; i++) {
            take(buffer[i]);
        }
        if (count < 0 && state == State.QUOTED) {
            throw new QuoteException("line " + opened + ": a quotation mark that begins a field here is never closed");
        }
        return count;
    }

    private void take(char c) throws QuoteException {
        boolean lineEnds = c == '\r' || c == '\n';
        boolean ends = lineEnds || c == separator;
        switch (state) {
            case FIELD_BEGINS -> {
                if (c == '"') {
                    opened = line;
                    state = State.QUOTED;
                } else if (!ends) {
                    state = State.PLAIN;
                }
            }
            case PLAIN -> state = ends ? State.FIELD_BEGINS : State.PLAIN;
            case QUOTED -> state = c == '"' ? State.QUOTE_IN_QUOTED : State.QUOTED;
            case QUOTE_IN_QUOTED -> {
                if (!ends && c != '"') {
                    throw new QuoteException(
                            "line " + line + ": the field that a quotation mark begins on line " + opened
                                    + " goes on behind the mark that closes it; inside a field a mark is written twice, and one"
                                    + " may be missing");
                }
                state = ends ? State.FIELD_BEGINS : State.QUOTED;
            }
        }
        line += c == '\r' || c == '\n' && !afterReturn ? 1 : 0;
        afterReturn = c == '\r';
    }
}
