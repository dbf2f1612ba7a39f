package dev.lorica.spark;

import com.github.luben.zstd.Zstd;
import com.github.luben.zstd.ZstdException;
import dev.lorica.exceptions.FileFormatException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/**
 * Numbers as bytes, without loss: as they are, which is quick, or compressed. Then the first bytes of floats, sign and most of the
 * exponent, which are much alike, are packed with Zstandard at its fastest; the others are noise and are left as they are.
 *
 * <pre>
 * int n, int size of the packed first bytes (0: not compressed),
 * not compressed: each number, the lowest byte first
 * compressed: the packed first bytes, then for each number its other bytes, the higher first
 * </pre>
 */
final class GradientBytes {
    private static final int HEAD = 8;

    private GradientBytes() {}

    /** @param values with zeros in the lower half where the format is {@link GradientFormat#BF16} */
    static byte[] encode(float[] values, GradientFormat format, boolean compressed) {
        byte[] packed = compressed ? packed(values, format) : null;
        return packed != null ? packed : asTheyAre(values, format);
    }

    private static byte[] asTheyAre(float[] values, GradientFormat format) {
        int n = values.length;
        ByteBuffer bytes =
                ByteBuffer.allocate(HEAD + format.bytes * n).putInt(n).putInt(0);
        bytes.order(ByteOrder.LITTLE_ENDIAN);
        if (format == GradientFormat.BF16) {
            byte[] all = bytes.array();
            int at = HEAD;
            for (float value : values) {
                int bits = Float.floatToRawIntBits(value);
                all[at++] = (byte) (bits >>> 16);
                all[at++] = (byte) (bits >>> 24);
            }
        } else {
            bytes.asFloatBuffer().put(values);
        }
        return bytes.array();
    }

    /** {@code null}: that would not be smaller. */
    private static byte[] packed(float[] values, GradientFormat format) {
        int n = values.length;
        int low = format.bytes - 1;
        byte[] first = new byte[n];
        for (int i = 0; i < n; i++) {
            first[i] = (byte) (Float.floatToRawIntBits(values[i]) >>> 24);
        }
        byte[] packed = Zstd.compress(first, 1);
        if (packed.length >= n) {
            return null;
        }
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
        int own = size == 0 ? format.bytes : format.bytes - 1;
        if (n < 0 || size < 0 || bytes.length != HEAD + (long) size + (long) own * n) {
            throw new FileFormatException(
                    "gradients came as " + bytes.length + " bytes, which cannot be " + n + " numbers");
        }
        float[] values = new float[n];
        if (size > 0) {
            unpack(bytes, size, format, values);
        } else if (format == GradientFormat.BF16) {
            int at = HEAD;
            for (int i = 0; i < n; i++) {
                values[i] = Float.intBitsToFloat((bytes[at++] & 0xff) << 16 | bytes[at++] << 24);
            }
        } else {
            head.order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(values);
        }
        return values;
    }

    private static void unpack(byte[] bytes, int size, GradientFormat format, float[] values) {
        int n = values.length;
        byte[] first = new byte[n];
        try {
            Zstd.decompressByteArray(first, 0, n, bytes, HEAD, size);
        } catch (ZstdException e) {
            throw new FileFormatException("gradients came damaged: " + e.getMessage(), e);
        }
        int at = HEAD + size;
        if (format == GradientFormat.BF16) {
            for (int i = 0; i < n; i++) {
                values[i] = Float.intBitsToFloat(first[i] << 24 | (bytes[at + i] & 0xff) << 16);
            }
            return;
        }
        for (int i = 0; i < n; i++) {
            values[i] = Float.intBitsToFloat(
                    first[i] << 24 | (bytes[at++] & 0xff) << 16 | (bytes[at++] & 0xff) << 8 | bytes[at++] & 0xff);
        }
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
