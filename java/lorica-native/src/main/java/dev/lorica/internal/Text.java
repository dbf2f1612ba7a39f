package dev.lorica.internal;

import dev.lorica.exceptions.InvalidArgumentException;
import java.nio.charset.StandardCharsets;
import org.bytedeco.javacpp.BytePointer;

/** Strings across the boundary, where they are UTF-8 and end with a NUL. */
public final class Text {
    private Text() {}

    /** A copy of the string; {@code null} for NULL. */
    public static String of(BytePointer text) {
        return text == null || text.isNull() ? null : text.getString(StandardCharsets.UTF_8);
    }

    /** A native copy. {@code what} names it in the message about a NUL inside. */
    public static BytePointer copy(String what, String text) {
        Arguments.given(text, what);
        if (text.indexOf('\0') >= 0) {
            throw new InvalidArgumentException(what + " holds a NUL character");
        }
        return Memory.of(text);
    }
}
