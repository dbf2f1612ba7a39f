package dev.lorica.hub;

import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.HubException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.util.HexFormat;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * One file on its way into the cache. What has come stays when the connection breaks or the process ends, and the next attempt asks
 * for the rest; the file gets its name once its size and checksum are those that were announced.
 */
final class Download {
    private static final Pattern CONTENT_RANGE = Pattern.compile("bytes (\\d{1,18})-(\\d{1,18})/(\\d{1,18}|\\*)");
    private static final int BUFFER = 1 << 18;
    /** Breaks without a single new byte between them. */
    private static final int MOST_BREAKS = 5;

    private final HubClient client;
    private final HubConfig config;
    private final HubListener listener;
    private final HubName name;
    private final String file;
    private final HubClient.Metadata metadata;
    private final Path partial;
    private final Path target;

    /** @param name with the commit as its revision */
    Download(
            HubClient client,
            HubConfig config,
            HubListener listener,
            HubName name,
            String file,
            HubClient.Metadata metadata,
            HubCache cache) {
        this.client = client;
        this.config = config;
        this.listener = listener;
        this.name = name;
        this.file = file;
        this.metadata = metadata;
        this.partial = cache.partial(metadata.etag());
        this.target = cache.blob(metadata.etag());
    }

    void run() {
        try {
            download();
        } catch (IOException e) {
            throw new FileAccessException(partial + " cannot be written: " + e.getMessage(), e);
        }
    }

    private void download() throws IOException {
        boolean resumed;
        try (FileChannel channel = FileChannel.open(
                partial, StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            if (channel.size() > metadata.size()) {
                channel.truncate(0);
            }
            resumed = channel.size() > 0;
            checkRoom(metadata.size() - channel.size());
            fill(channel);
            if (!isSound(channel)) {
                // A part from another time may be to blame: once more from the beginning.
                if (resumed) {
                    channel.truncate(0);
                    fill(channel);
                }
                if (!resumed || !isSound(channel)) {
                    channel.truncate(0);
                    throw new HubException(what() + " came with another checksum than announced, " + metadata.etag()
                            + "; it is damaged or was tampered with, and was not kept");
                }
            }
            channel.force(true);
        }
        Files.move(partial, target, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    }

    private void fill(FileChannel channel) throws IOException {
        int breaks = 0;
        long furthest = channel.size();
        while (channel.size() < metadata.size()) {
            IOException reason = null;
            try {
                receive(channel);
            } catch (IOException e) {
                reason = e;
            }
            if (channel.size() == metadata.size()) {
                break;
            }
            breaks = channel.size() > furthest ? 0 : breaks + 1;
            furthest = Math.max(furthest, channel.size());
            if (breaks == MOST_BREAKS) {
                throw new HubException(
                        what() + ": the connection breaks again and again after " + channel.size() + " of "
                                + metadata.size() + " bytes; what has come is kept, run the command again to go on",
                        reason);
            }
            client.pause(Duration.ofSeconds(1L << breaks));
        }
        listener.downloading(file, metadata.size(), metadata.size());
    }

    /** One answer, to its end or to where it breaks off. */
    private void receive(FileChannel channel) throws IOException {
        long from = channel.size();
        try (HubClient.Answer answer = client.file(name, file, from)) {
            if (answer.status() == 416 || answer.status() == 206 && !continues(answer, from)) {
                channel.truncate(0);
                return;
            }
            if (answer.status() != 206) {
                channel.truncate(0);
                from = 0;
            }
            channel.position(from);
            try (Watch watch = new Watch(answer.body(), config.timeout())) {
                copy(answer.body(), channel, watch);
            }
        }
    }

    private boolean continues(HubClient.Answer answer, long from) {
        Matcher range =
                CONTENT_RANGE.matcher(HubClient.header(answer, "Content-Range").orElse(""));
        return range.matches()
                && Long.parseLong(range.group(1)) == from
                && (range.group(3).equals("*") || Long.parseLong(range.group(3)) == metadata.size());
    }

    private void copy(InputStream body, FileChannel channel, Watch watch) throws IOException {
        byte[] buffer = new byte[BUFFER];
        long done = channel.position();
        for (int n = body.read(buffer); n >= 0; n = body.read(buffer)) {
            watch.touch();
            if (n > metadata.size() - done) {
                channel.truncate(0);
                throw new HubException(what() + " is longer than the " + metadata.size()
                        + " bytes that were announced; it was not kept");
            }
            write(channel, ByteBuffer.wrap(buffer, 0, n));
            done += n;
            listener.downloading(file, done, metadata.size());
        }
    }

    /** A disk that is full must not look like a connection that breaks. */
    private void write(FileChannel channel, ByteBuffer bytes) {
        try {
            while (bytes.hasRemaining()) {
                channel.write(bytes);
            }
        } catch (IOException e) {
            throw new FileAccessException(partial + " cannot be written: " + e.getMessage(), e);
        }
    }

    private void checkRoom(long bytes) {
        long free = partial.toFile().getUsableSpace(); // 0: unknown
        if (free > 0 && free < bytes) {
            throw new FileAccessException(what() + " needs " + (bytes >> 20) + " MiB more, and there are "
                    + (free >> 20) + " MiB in " + config.cache() + "; HF_HUB_CACHE names another folder");
        }
    }

    /** Large files are named by their SHA-256, others as git names them; of anything else only the size is known. */
    private boolean isSound(FileChannel channel) throws IOException {
        String etag = metadata.etag();
        boolean sha256 = etag.matches("[0-9a-f]{64}");
        if (!sha256 && !etag.matches("[0-9a-f]{40}")) {
            return true;
        }
        MessageDigest digest = digest(sha256 ? "SHA-256" : "SHA-1");
        if (!sha256) {
            digest.update(("blob " + metadata.size() + "\0").getBytes(StandardCharsets.US_ASCII));
        }
        ByteBuffer buffer = ByteBuffer.allocate(BUFFER);
        channel.position(0);
        while (channel.read(buffer) >= 0) {
            digest.update(buffer.flip());
            buffer.clear();
        }
        return HexFormat.of().formatHex(digest.digest()).equals(etag);
    }

    private static MessageDigest digest(String algorithm) {
        try {
            return MessageDigest.getInstance(algorithm);
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e); // every Java has both
        }
    }

    private String what() {
        return name.inWords() + ":" + file;
    }

    /** Ends a read that hears nothing for too long, by closing the stream under it. */
    private static final class Watch implements AutoCloseable {
        private final Thread thread;
        private volatile long heard = System.nanoTime();

        Watch(InputStream stream, Duration longest) {
            thread = new Thread(() -> watch(stream, longest), "lorica-download-watch");
            thread.setDaemon(true);
            thread.start();
        }

        void touch() {
            heard = System.nanoTime();
        }

        private void watch(InputStream stream, Duration longest) {
            try {
                while (true) {
                    long left = longest.toNanos() - (System.nanoTime() - heard);
                    if (left <= 0) {
                        stream.close();
                        return;
                    }
                    Thread.sleep(left / 1_000_000 + 1);
                }
            } catch (InterruptedException | IOException e) {
                // The read is over.
            }
        }

        @Override
        public void close() {
            thread.interrupt();
        }
    }
}
