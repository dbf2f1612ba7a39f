package dev.lorica.hub;

/** Told what {@link Hub} does. Called from the thread that asked for the file. */
public interface HubListener {
    /** One that does not listen. */
    HubListener SILENT = new HubListener() {};

    /**
     * A file is on its way.
     *
     * @param file  its name in the repository
     * @param done  bytes that are here; {@code total} at the end
     * @param total bytes of the file
     */
    default void downloading(String file, long done, long total) {}

    /**
     * A file is about to be sent; small ones go with what they are a change of, and are not told of.
     *
     * @param file  its name in the repository
     * @param total its bytes
     */
    default void uploading(String file, long total) {}

    /**
     * One line about a choice that was made, or about why it takes longer.
     *
     * @param line the line, without an end
     */
    default void note(String line) {}
}
