package dev.lorica.files;

import dev.lorica.internal.Arguments;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;

/** Checksums of files, as {@code sha256sum} writes them. */
public final class Sha256 {
    private static final int PIECE = 1 << 18;

    private Sha256() {}

    /** {@return a digest that has seen nothing yet} */
    public static MessageDigest digest() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e); // every JDK has it
        }
    }

    /**
     * {@return the SHA-256 of a file's bytes, in hexadecimal; an interrupt of the thread does not disturb it}
     *
     * @param file the file
     * @throws java.io.IOException if it cannot be read
     */
    public static String of(Path file) throws IOException {
        Arguments.given(file, "file");
        MessageDigest digest = digest();
        try (InputStream in = new FileInputStream(file.toFile())) {
            byte[] buffer = new byte[PIECE];
            for (int n = in.read(buffer); n >= 0; n = in.read(buffer)) {
                digest.update(buffer, 0, n);
            }
        }
        return HexFormat.of().formatHex(digest.digest());
    }
}
