package dev.lorica.serve;

import java.io.IOException;
import java.net.Inet4Address;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Set;

/**
 * Which connections are open, as Linux lists them ({@code proc_net(5)}). The JDK's server tells who waits for an answer nothing of the
 * other end, before something is written there. Where there is no such list nothing is known.
 */
final class Connections {
    private static final List<Path> LISTS = List.of(Path.of("/proc/self/net/tcp"), Path.of("/proc/self/net/tcp6"));
    private static final long FRESH_NANOSECONDS = 500_000_000;
    private static final String ESTABLISHED = "01";

    private final List<Path> lists;
    private Set<String> open = Set.of();
    private long read;

    Connections() {
        this(LISTS);
    }

    Connections(List<Path> lists) {
        this.lists = lists;
        read = System.nanoTime() - FRESH_NANOSECONDS;
    }

    /** Whether both ends are open, half a second ago or later; never, where that is not known. */
    synchronized boolean isOpen(InetSocketAddress own, InetSocketAddress other) {
        if (System.nanoTime() - read >= FRESH_NANOSECONDS) {
            open = read();
            read = System.nanoTime();
        }
        return open.contains(key(own, other));
    }

    private Set<String> read() {
        Set<String> found = new HashSet<>();
        for (Path list : lists) {
            try {
                for (String line : Files.readAllLines(list, StandardCharsets.US_ASCII)) {
                    String[] words = line.strip().split("\\s+", 5);
                    if (words.length == 5 && words[3].equals(ESTABLISHED)) {
                        found.add(inFour(words[1]) + " " + inFour(words[2]));
                    }
                }
            } catch (IOException e) {
                // no IPv6, or no Linux
            }
        }
        return found;
    }

    private static String key(InetSocketAddress own, InetSocketAddress other) {
        return text(own) + " " + text(other);
    }

    /** An address of IPv4 as one of IPv6 is that of IPv4. */
    private static String inFour(String address) {
        boolean mapped = address.length() == 37
                && (address.startsWith("0000000000000000FFFF0000") || address.startsWith("00000000000000000000FFFF"));
        return mapped ? address.substring(24) : address;
    }

    /** As the list has it: words of four bytes as they lie in memory, read as numbers. */
    private static String text(InetSocketAddress address) {
        InetAddress ip = address.getAddress();
        ByteBuffer bytes = ByteBuffer.wrap(ip.getAddress()).order(ByteOrder.nativeOrder());
        StringBuilder text = new StringBuilder();
        while (bytes.hasRemaining()) {
            text.append(String.format(Locale.ROOT, "%08X", bytes.getInt()));
        }
        text.append(String.format(Locale.ROOT, ":%04X", address.getPort()));
        return ip instanceof Inet4Address ? text.toString() : inFour(text.toString());
    }
}
