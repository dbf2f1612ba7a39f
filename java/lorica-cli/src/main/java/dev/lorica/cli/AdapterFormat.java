package dev.lorica.cli;

import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.AdapterMetadata;
import dev.lorica.adapter.Method;
import dev.lorica.exceptions.LoricaException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;

/** The files of an adapter's folder. */
enum AdapterFormat {
    PEFT,
    GGUF,
    BOTH;

    private static final List<String> ALL = List.of(
            Adapter.FILE_NAME,
            Adapter.PEFT_FILE_NAME,
            Adapter.PEFT_CONFIG_NAME,
            Adapter.ADAPTERHUB_FILE_NAME,
            Adapter.ADDED_TOKENS_FILE_NAME,
            AdapterMetadata.FILE_NAME);

    /** Sees to it, before anything is computed, that writing into the folder loses nothing. */
    void check(Path folder, boolean overwrite, Inputs inputs) {
        for (String name : ALL) {
            Path file = folder.resolve(name);
            inputs.refuse("--output " + folder, file);
            if (Files.exists(file) && !overwrite) {
                throw new LoricaException("--output " + folder + " holds " + name
                        + " already; choose another folder, or replace what is in it with --overwrite");
            }
        }
    }

    /** Writes those files, and takes away those of the other format that an earlier adapter left: they would not be this one. */
    void write(Adapter adapter, Path folder, String baseModelName) {
        Set<Adapter.Format> formats =
                switch (this) {
                    case PEFT -> Set.of(Adapter.Format.PEFT);
                    case GGUF -> Set.of(Adapter.Format.GGUF);
                    case BOTH -> Set.of(Adapter.Format.GGUF, Adapter.Format.PEFT);
                };
        adapter.save(folder, formats, baseModelName);
    }

    /** What its files take, less than a page of names and numbers aside: the parameters are in f32. */
    long bytes(long parameters) {
        return (this == BOTH ? 2 : 1) * Float.BYTES * parameters;
    }

    /**
     * That in which adapters of a method can be saved.
     *
     * @param classifies whether there is a classifier beside it
     * @throws IllegalArgumentException if it has none of the files that are asked for
     */
    AdapterFormat of(Method method, boolean classifies) {
        if (method == Method.BOTTLENECK && classifies) {
            if (this == PEFT) {
                throw new IllegalArgumentException(
                        "--adapter-format peft and a classifier with --method bottleneck exclude"
                                + " each other: AdapterHub's heads are not written; take gguf");
            }
            return GGUF;
        }
        if (method
                == Method.FULL) { // of which PEFT has none; --adapter-format peft asks for a folder of the model beside
            // it
            return GGUF;
        }
        if (method != Method.BITFIT || this == GGUF) {
            return this;
        }
        if (this == PEFT) {
            throw new IllegalArgumentException("--adapter-format peft and --method " + method
                    + " exclude each other: PEFT has no such adapters; lorica merge makes a model with these "
                    + "biases and norms");
        }
        return GGUF;
    }

    /** The one of its files to tell people of. */
    String mainFile(Method method) {
        String inPeft = method == Method.BOTTLENECK ? Adapter.ADAPTERHUB_FILE_NAME : Adapter.PEFT_FILE_NAME;
        return this == PEFT ? inPeft : Adapter.FILE_NAME;
    }
}
