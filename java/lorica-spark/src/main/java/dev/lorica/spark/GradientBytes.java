package dev.lorica.spark;

import com.github.luben.zstd.Zstd;
import com.github.luben.zstd.ZstdException;
import dev.lorica.exceptions.FileFormatException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/**
 * Numbers as bytes, without loss. The first bytes of floats, sign and most of the exponent, are much alike and are compressed, with
 * Zstandard at its fastest; the others are noise and are left as they are.
 *
 * <pre>
 * int n, int size of the first bytes (n: as they are), these, then for each number its other bytes, the higher first
 * </pre>
 */
final class GradientBytes {
    private static final int HEAD = 8;

    private GradientBytes() {}

    /** @param values with zeros in the lower half where the format is {@link GradientFormat#BF16} */
    static byte[] encode(float[] values, GradientFormat format, boolean compressed) {
        int n = values.length;
        int low = format.bytes - 1;
        byte[] first = new byte[n];
        for (int i = 0; i < n; i++) {
            first[i] = (byte) (Float.floatToRawIntBits(values[i]) >>> 24);
        }
        byte[] packed = compressed ? Zstd.compress(first, 1) : first;
        packed = packed.length < n ? packed : first;
        byte[] bytes = new byte[HEAD + packed.length + low * n];
        ByteBuffer.wrap(bytes).putInt(n).putInt(packed.length).put(packed);
        int at = HEAD + packed.length;
        if (format == GradientFormat.BF16) {
            for (int i = 0; i < n; i++) {
                bytes[at + i] = (byte) (Float.floatToRawIntBits(values[i]) >>> 16);
            }
            return bytes;
        }
        for (int i = 0; i < n; i++) {
            int bits = Float.floatToRawIntBits(values[i]);
            bytes[at++] = (byte) (bits >>> 16);
            bytes[at++] = (byte) (bits >>> 8);
            bytes[at++] = (byte) bits;
        }
        return bytes;
    }

    static float[] decode(byte[] bytes, GradientFormat format) {
        ByteBuffer head = ByteBuffer.wrap(bytes);
        int n = head.getInt();
        int size = head.getInt();
        int low = format.bytes - 1;
        if (n < 0 || size < 0 || bytes.length != HEAD + (long) size + (long) low * n) {
            throw new FileFormatException(
                    "gradients came as " + bytes.length + " bytes, which cannot be " + n + " numbers");
        }
        byte[] first = new byte[n];
        if (size == n) {
            System.arraycopy(bytes, HEAD, first, 0, n);
        } else {
            try {
                Zstd.decompressByteArray(first, 0, n, bytes, HEAD, size);
            } catch (ZstdException e) {
                throw new FileFormatException("gradients came damaged: " + e.getMessage(), e);
            }
        }
        float[] values = new float[n];
        int at = HEAD + size;
        if (format == GradientFormat.BF16) {
            for (int i = 0; i < n; i++) {
                values[i] = Float.intBitsToFloat(first[i] << 24 | (bytes[at + i] & 0xff) << 16);
            }
            return values;
        }
        for (int i = 0; i < n; i++) {
            values[i] = Float.intBitsToFloat(
                    first[i] << 24 | (bytes[at++] & 0xff) << 16 | (bytes[at++] & 0xff) << 8 | bytes[at++] & 0xff);
        }
        return values;
    }

    /** As they are, 4 bytes each: parameters, which are broadcast. */
    static byte[] plain(float[] values) {
        ByteBuffer bytes = ByteBuffer.allocate(4 * values.length).order(ByteOrder.LITTLE_ENDIAN);
        bytes.asFloatBuffer().put(values);
        return bytes.array();
    }

    static float[] ofPlain(byte[] bytes) {
        float[] values = new float[bytes.length / 4];
        ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(values);
        return values;
    }
}
