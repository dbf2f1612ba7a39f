package dev.lorica.internal;

import dev.lorica.exceptions.LibraryLoadException;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.net.URL;
import java.util.Locale;
import java.util.Properties;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.Loader;

/**
 * Loads the native library out of the jar, and says clearly why when that fails.
 *
 * <p>{@link #load} comes before the first use of any class in {@code dev.lorica.internal.c}.
 */
public final class NativeLibrary {
    private static final String PACKAGE = "/dev/lorica/internal/c/";
    private static final String LIBRARY = "libjnilorica.so";
    private static final String GPU_LIBRARY = "liblorica-cuda.so";
    private static final Pattern MISSING_VERSION =
            Pattern.compile("version `(GLIBC|GLIBCXX|CXXABI)_([0-9.]+)' not found");
    private static final Pattern MISSING_LIBRARY = Pattern.compile("(?:^|: )([^: ]+): cannot open shared object file");

    private static boolean loaded;
    private static String failure;
    private static Throwable failureCause;

    private NativeLibrary() {}

    /**
     * Loads the library unless it is loaded already.
     *
     * @throws LibraryLoadException in one line: the platform, the file that was tried, and why it did not work
     */
    public static synchronized void load() {
        if (loaded) {
            return;
        }
        if (failure == null) {
            try {
                tryLoad();
                loaded = true;
                return;
            } catch (LibraryLoadException e) {
                failure = e.getMessage();
            } catch (UnsatisfiedLinkError | NoClassDefFoundError | ExceptionInInitializerError | RuntimeException e) {
                failure = explain(rootMessage(e));
                failureCause = e;
            }
        }
        throw new LibraryLoadException(failure, failureCause);
    }

    private static void tryLoad() {
        Loader.load(dev.lorica.internal.c.Lorica.class);
        dev.lorica.internal.c.Lorica.lorica_set_thread_limit(
                Runtime.getRuntime().availableProcessors());
        NativeLog.start();
        unpackGpuLibrary();
    }

    /** Tells the library what the heap may yet take, which is not there for its plans; to be called before one is made. */
    public static void reserveHeap() {
        Runtime runtime = Runtime.getRuntime();
        dev.lorica.internal.c.Lorica.lorica_set_reserved_memory(runtime.maxMemory() - runtime.totalMemory());
    }

    /** The CUDA backend, if the artifact with the classifier {@code linux-x86_64-gpu} is on the class path. */
    private static void unpackGpuLibrary() {
        // Of the class loader, as it is in another jar: a class finds only what is in its own module.
        URL library = NativeLibrary.class
                .getClassLoader()
                .getResource(PACKAGE.substring(1) + Loader.getPlatform() + "-gpu/" + GPU_LIBRARY);
        if (library == null) {
            return;
        }
        try {
            File file = Loader.cacheResource(library);
            try (BytePointer path = Text.copy("the path", file.getAbsolutePath())) {
                Status.check(dev.lorica.internal.c.Lorica.lorica_cuda_set_library(path));
            }
        } catch (IOException e) {
            throw new LibraryLoadException("the GPU library " + library + " cannot be unpacked: " + e.getMessage(), e);
        }
    }

    private static String unsupported(String platform) {
        return "no native library for " + platform + " in lorica-native" + version()
                + ": add the artifact built for this platform, or build it with 'mvn package' in the source tree";
    }

    private static String version() {
        try (InputStream in =
                NativeLibrary.class.getResourceAsStream("/META-INF/maven/dev.lorica/lorica-native/pom.properties")) {
            if (in != null) {
                Properties properties = new Properties();
                properties.load(in);
                return " " + properties.getProperty("version");
            }
        } catch (IOException e) {
            // The version only decorates a message.
        }
        return "";
    }

    static String explain(String reason) {
        String platform = Loader.getPlatform();
        if (NativeLibrary.class.getResource(PACKAGE + platform + "/" + LIBRARY) == null) {
            return unsupported(platform);
        }
        Matcher version = MISSING_VERSION.matcher(reason);
        if (version.find()) {
            String name = version.group(1).equals("GLIBC") ? "glibc" : "libstdc++";
            return "the native library needs " + name + " with " + version.group(1) + "_" + version.group(2)
                    + ", which this system does not have; use a newer system (Debian 13, Ubuntu 24.04) or build from source on"
                    + " this one (" + reason + ")";
        }
        if (reason.contains("ld-linux") || reason.contains("ld-musl")) {
            return "the native library needs glibc, which this system (musl, as in Alpine?) does not have (" + reason
                    + ")";
        }
        Matcher missing = MISSING_LIBRARY.matcher(reason);
        if (missing.find()) {
            return "the native library needs " + missing.group(1) + ", which this system does not have: install it ("
                    + reason + ")";
        }
        if (reason.toLowerCase(Locale.ROOT).contains("failed to map segment")
                || reason.contains("Operation not permitted")) {
            return "the native library was unpacked where programs may not be run from; set -Dorg.bytedeco.javacpp.cachedir"
                    + " to a folder on a file system that is not mounted noexec (" + reason + ")";
        }
        return "the native library for " + platform + " cannot be loaded: " + reason;
    }

    /** The innermost message, on one line: it names the file that was tried. */
    private static String rootMessage(Throwable thrown) {
        Throwable root = thrown;
        while (root.getCause() != null) {
            root = root.getCause();
        }
        return String.valueOf(root.getMessage()).replaceAll("\\s*\\R\\s*", " ");
    }
}
