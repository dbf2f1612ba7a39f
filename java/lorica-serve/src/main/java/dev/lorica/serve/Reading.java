package dev.lorica.serve;

import dev.lorica.generate.GenerationResult;
import dev.lorica.generate.GenerationResult.FinishReason;
import dev.lorica.generate.StreamedText;
import java.util.ArrayList;
import java.util.List;

/** The texts of one request, read as they come. However that ends, none of them goes on without a reader. */
final class Reading {
    /** After so long without anything, a stream says that it waits, and hears whether anybody listens. */
    private static final long QUIET_MILLISECONDS = 2000;
    /** So often is it asked whether somebody waits for an answer that is no stream. */
    private static final long LOOK_MILLISECONDS = 1000;

    /** Hears of what comes. */
    interface Sink {
        default void piece(int number, StreamedText.Piece piece) {}

        void ended(int number, GenerationResult result);
    }

    private Reading() {}

    static void read(Call call, List<StreamedText> texts, boolean stream, Sink sink) {
        List<StreamedText> open = new ArrayList<>(texts);
        long looked = System.nanoTime();
        try {
            while (!open.isEmpty()) {
                long left = call.millisecondsLeft();
                if (left == 0) {
                    throw ApiException.of(504, "timeout_error", "timeout", "the time that a request may take is over");
                }
                StreamedText.awaitAny(open, Math.min(left, stream ? QUIET_MILLISECONDS : LOOK_MILLISECONDS));
                if (!stream && System.nanoTime() - looked > LOOK_MILLISECONDS * 1_000_000) {
                    call.requireClient();
                    looked = System.nanoTime();
                }
                boolean anything = false;
                for (StreamedText text : List.copyOf(open)) {
                    StreamedText.Piece piece = text.next(0);
                    int number = texts.indexOf(text);
                    if (piece == null) {
                        open.remove(text);
                        sink.ended(number, complete(text.result()));
                    } else if (!piece.text().isEmpty() || !piece.logProbs().isEmpty()) {
                        sink.piece(number, piece);
                    } else {
                        continue;
                    }
                    anything = true;
                }
                if (stream && !anything) {
                    call.stillThere();
                }
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw closing();
        } finally {
            open.forEach(StreamedText::cancel);
        }
    }

    private static GenerationResult complete(GenerationResult result) {
        if (result.finishReason() == FinishReason.CANCELLED) {
            throw closing();
        }
        return result;
    }

    private static ApiException closing() {
        return ApiException.of(503, "server_error", "closing", "the server is closing");
    }

    static String finishReason(GenerationResult result) {
        return switch (result.finishReason()) {
            case END_OF_TEXT, STOP_STRING -> "stop";
            case MAX_NEW_TOKENS, CONTEXT_FULL -> "length";
            case CANCELLED -> throw closing();
        };
    }
}
