package dev.lorica.convert;

import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.UnsupportedException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.function.BiConsumer;

/**
 * Reads SentencePiece's {@code tokenizer.model}, a protocol buffer (sentencepiece_model.proto): ModelProto { 1 repeated pieces
 * { 1 piece, 2 score, 3 type }, 2 trainer_spec { 3 model_type }, 3 normalizer_spec { 3 add_dummy_prefix } }.
 */
final class SentencePieceModel {
    private static final int VARINT = 0;
    private static final int FIXED64 = 1;
    private static final int BYTES = 2;
    private static final int FIXED32 = 5;
    private static final int BPE = 2;

    private final Path file;

    private SentencePieceModel(Path file) {
        this.file = file;
    }

    /** A field: a number, or bytes. */
    private record Field(long number, ByteBuffer bytes) {}

    static Vocabulary read(Path file, byte[] contents) {
        return new SentencePieceModel(file).read(ByteBuffer.wrap(contents));
    }

    private Vocabulary read(ByteBuffer contents) {
        Vocabulary vocabulary = new Vocabulary();
        vocabulary.model = "llama";
        vocabulary.pre = "default";
        vocabulary.addSpacePrefix = true;
        int[] modelType = {1};
        fields(contents, (id, field) -> {
            switch (id) {
                case 1 -> addPiece(vocabulary, message(field));
                case 2 ->
                    fields(message(field), (inner, value) -> {
                        if (inner == 3) {
                            modelType[0] = (int) value.number();
                        }
                    });
                case 3 ->
                    fields(message(field), (inner, value) -> {
                        if (inner == 3) {
                            vocabulary.addSpacePrefix = value.number() != 0;
                        }
                    });
                default -> {
                    // other specifications
                }
            }
        });
        if (vocabulary.size() == 0) {
            throw damaged("it holds no pieces");
        }
        if (modelType[0] != BPE) {
            throw new UnsupportedException(
                    file + ": only SentencePiece models of type BPE are supported, as Llama's are");
        }
        return vocabulary;
    }

    private void addPiece(Vocabulary vocabulary, ByteBuffer piece) {
        String[] text = {""};
        float[] score = {0};
        int[] type = {Vocabulary.NORMAL};
        fields(piece, (id, field) -> {
            switch (id) {
                case 1 -> text[0] = utf8(message(field));
                case 2 -> score[0] = Float.intBitsToFloat((int) field.number());
                case 3 -> type[0] = (int) field.number();
                default -> {
                    // unknown
                }
            }
        });
        if (type[0] < Vocabulary.NORMAL || type[0] > Vocabulary.BYTE) {
            throw damaged("piece " + vocabulary.size() + " has the type " + type[0]);
        }
        vocabulary.set(vocabulary.size(), text[0], type[0], score[0]);
    }

    private void fields(ByteBuffer message, BiConsumer<Integer, Field> field) {
        message.order(ByteOrder.LITTLE_ENDIAN);
        while (message.hasRemaining()) {
            long tag = varint(message);
            int id = (int) Math.min(tag >>> 3, Integer.MAX_VALUE);
            Field value =
                    switch ((int) (tag & 7)) {
                        case VARINT -> new Field(varint(message), null);
                        case FIXED64 -> new Field(need(message, 8).getLong(), null);
                        case BYTES -> new Field(0, take(message, varint(message)));
                        case FIXED32 -> new Field(need(message, 4).getInt(), null);
                        default -> throw damaged("a field has the wire type " + (tag & 7));
                    };
            field.accept(id, value);
        }
    }

    private ByteBuffer message(Field field) {
        if (field.bytes() == null) {
            throw damaged("a number stands where bytes are expected");
        }
        return field.bytes();
    }

    private long varint(ByteBuffer from) {
        long value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            byte next = need(from, 1).get();
            value |= (long) (next & 0x7f) << shift;
            if (next >= 0) {
                return value;
            }
        }
        throw damaged("a number has more than 64 bits");
    }

    private ByteBuffer take(ByteBuffer from, long length) {
        if (length < 0 || length > from.remaining()) {
            throw damaged("a field of " + Long.toUnsignedString(length) + " bytes at byte " + from.position()
                    + "; is it complete?");
        }
        ByteBuffer part = from.slice(from.position(), (int) length);
        from.position(from.position() + (int) length);
        return part;
    }

    private ByteBuffer need(ByteBuffer from, int bytes) {
        if (from.remaining() < bytes) {
            throw damaged("it ends inside a field; is it complete?");
        }
        return from;
    }

    private String utf8(ByteBuffer bytes) {
        try {
            return StandardCharsets.UTF_8.newDecoder().decode(bytes).toString();
        } catch (CharacterCodingException e) {
            throw damaged("a piece is not UTF-8");
        }
    }

    private FileFormatException damaged(String how) {
        return new FileFormatException(file + ": damaged SentencePiece model: " + how);
    }
}
