package dev.lorica.internal;

import dev.lorica.exceptions.CancelledException;
import dev.lorica.exceptions.DeviceException;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.InternalErrorException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.exceptions.MemoryException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.exceptions.NonFiniteException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.internal.c.Lorica;

/** The one place where a status of the C interface becomes an exception. */
public final class Status {
    private Status() {}

    /** Throws unless {@code status} is {@code LORICA_OK}. To be called on the thread that made the call. */
    public static void check(int status) {
        if (status != Lorica.LORICA_OK) {
            throw exception(status, Text.of(Lorica.lorica_last_error()));
        }
    }

    static LoricaException exception(int status, String message) {
        return switch (status) {
            case Lorica.LORICA_ERROR_INVALID_ARGUMENT -> new InvalidArgumentException(message);
            case Lorica.LORICA_ERROR_IO -> new FileAccessException(message);
            case Lorica.LORICA_ERROR_FORMAT -> new FileFormatException(message);
            case Lorica.LORICA_ERROR_UNSUPPORTED -> new UnsupportedException(message);
            case Lorica.LORICA_ERROR_OUT_OF_MEMORY -> new MemoryException(message);
            case Lorica.LORICA_ERROR_DEVICE -> new DeviceException(message);
            case Lorica.LORICA_ERROR_NON_FINITE -> new NonFiniteException(message);
            case Lorica.LORICA_ERROR_MISMATCH -> new MismatchException(message);
            case Lorica.LORICA_ERROR_INTERNAL -> new InternalErrorException(message);
            case Lorica.LORICA_ERROR_CANCELLED -> new CancelledException(message);
            default -> new InternalErrorException("unknown status " + status + ": " + message);
        };
    }
}
