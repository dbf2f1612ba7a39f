package dev.lorica.cli;

import dev.lorica.adapter.Adapter;
import dev.lorica.exceptions.LoricaException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** The files of an adapter's folder. */
enum AdapterFormat {
    PEFT,
    GGUF,
    BOTH;

    /** Writes those files, and takes away those of the other format that an earlier adapter left: they would not be this one. */
    void write(Adapter adapter, Path folder, String baseModelName) {
        if (this != PEFT) {
            adapter.save(folder);
        }
        if (this != GGUF) {
            adapter.exportPeft(folder, baseModelName);
        }
        if (this == PEFT) {
            delete(folder.resolve(Adapter.FILE_NAME));
        }
        if (this == GGUF) {
            delete(folder.resolve(Adapter.PEFT_CONFIG_NAME));
            delete(folder.resolve(Adapter.PEFT_FILE_NAME));
        }
    }

    /** What its files take, less than a page of names and numbers aside: the parameters are in f32. */
    long bytes(long parameters) {
        return (this == BOTH ? 2 : 1) * Float.BYTES * parameters;
    }

    /** The one of its files to tell people of. */
    String mainFile() {
        return this == PEFT ? Adapter.PEFT_FILE_NAME : Adapter.FILE_NAME;
    }

    private static void delete(Path file) {
        try {
            Files.deleteIfExists(file);
        } catch (IOException e) {
            throw new LoricaException(file + " is of an earlier adapter and cannot be deleted: " + e.getMessage(), e);
        }
    }
}
