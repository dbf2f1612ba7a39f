package dev.lorica.spark;

import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.LibraryLoadException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.exceptions.MemoryException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.exceptions.NonFiniteException;
import java.io.Serializable;

/**
 * What went wrong on a machine, on its way to the driver, which throws it as the kind of exception that it was. It travels as a result:
 * a task that throws is tried again by Spark, and what is wrong here would be wrong again.
 *
 * @param kind    simple name of the exception's class
 * @param message with the machine's name in front
 */
record Trouble(String kind, String message) implements Serializable {

    static Trouble of(String host, Throwable e) {
        String what = e instanceof OutOfMemoryError
                ? "Java's own memory is full (" + e.getMessage() + "); give executors more: spark.executor.memory"
                : e instanceof LoricaException ? e.getMessage() : e.toString();
        Class<?> kind = e instanceof OutOfMemoryError
                ? MemoryException.class
                : e instanceof LinkageError ? LibraryLoadException.class : e.getClass();
        return new Trouble(kind.getSimpleName(), "on " + host + ": " + what);
    }

    LoricaException exception() {
        return switch (kind) {
            case "MemoryException" -> new MemoryException(message);
            case "NonFiniteException" -> new NonFiniteException(message);
            case "MismatchException" -> new MismatchException(message);
            case "FileAccessException" -> new FileAccessException(message);
            case "InvalidArgumentException" -> new InvalidArgumentException(message);
            case "LibraryLoadException" -> new LibraryLoadException(message, null);
            default -> new LoricaException(message);
        };
    }
}
