package dev.lorica.hub;

import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.HubException;
import dev.lorica.internal.Arguments;
import java.io.IOException;
import java.net.ConnectException;
import java.net.UnknownHostException;
import java.net.http.HttpTimeoutException;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import java.util.regex.Pattern;

/**
 * Files of Hugging Face's hub, by name: gives where a file is on this machine, and downloads it first where need be.
 *
 * <pre>{@code
 * Path file = new Hub(HubConfig.fromEnvironment(), HubListener.SILENT).model(HubName.parse("hf:owner/repo:Q4_K_M"));
 * }</pre>
 *
 * {@link dev.lorica.Model#load} and all else that takes the path of a model or an adapter understand such names too. The cache is the
 * one of Hugging Face's own programs, so what they have downloaded is there, and the other way round. When the hub cannot be reached,
 * what is in the cache is used.
 */
public final class Hub {
    private static final List<String> ADAPTER_GGUF = List.of("adapter.gguf");
    private static final List<String> ADAPTER_PEFT = List.of("adapter_config.json", "adapter_model.safetensors");
    private static final String ADAPTER_SIDE_FILE = "lorica_adapter.json";
    private static final Pattern MODEL_FILES = Pattern.compile(
            "(?:config|generation_config|tokenizer|tokenizer_config|special_tokens_map"
                    + "|added_tokens|model\\.safetensors\\.index)\\.json|tokenizer\\.model|chat_template\\.jinja|model(?:-\\d+-of-\\d+)?\\.safetensors");

    private static final String CARD = "README.md";

    /** Where the hub keeps the Parquet files that it makes of data sets in other forms. */
    private static final String CONVERTED = "refs/convert/parquet";

    private static final Pattern DATA_FILE =
            Pattern.compile("\\.(?:parquet|jsonl?|csv|tsv|txt)(?:\\.gz)?$", Pattern.CASE_INSENSITIVE);

    private final HubConfig config;
    private final HubListener listener;
    private final HubClient client;

    /**
     * A hub with its cache; nothing is asked for yet.
     *
     * @param config   where they are
     * @param listener is told of downloads and choices
     */
    public Hub(HubConfig config, HubListener listener) {
        this(config, listener, time -> Thread.sleep(time.toMillis()));
    }

    Hub(HubConfig config, HubListener listener, HubClient.Pause pause) {
        this.config = Arguments.given(config, "config");
        this.listener = Arguments.given(listener, "listener");
        this.client = new HubClient(config, listener, pause);
    }

    /**
     * {@return the path as it is, or the file that it names on the hub, as the environment says}
     *
     * @param path a path, or a name that begins with {@code hf:}
     */
    public static Path model(Path path) {
        Arguments.given(path, "path");
        return local(path, hub -> hub.model(HubName.parse(path)));
    }

    /**
     * {@return the path as it is, or the adapter that it names on the hub, as the environment says}
     *
     * @param path a path, or a name that begins with {@code hf:}
     */
    public static Path adapter(Path path) {
        Arguments.given(path, "path");
        return local(path, hub -> hub.adapter(HubName.parse(path)));
    }

    /**
     * {@return the path as it is, or the folder of a model in safetensors that it names on the hub, as the environment says}
     *
     * @param path a path, or a name that begins with {@code hf:}
     */
    public static Path folder(Path path) {
        Arguments.given(path, "path");
        return local(path, hub -> hub.folder(HubName.parse(path)));
    }

    /**
     * {@return the path as it is, or the Parquet files of the data set that it names on the hub, as the environment says}
     *
     * @param path a path, or a name that begins with {@code hf:}
     */
    public static List<Path> data(Path path) {
        Arguments.given(path, "path");
        return HubName.is(path.toString())
                ? new Hub(HubConfig.fromEnvironment(), HubListener.SILENT).data(HubName.parse(path))
                : List.of(path);
    }

    private static Path local(Path path, Function<Hub, Path> find) {
        return HubName.is(path.toString())
                ? find.apply(new Hub(HubConfig.fromEnvironment(), HubListener.SILENT))
                : path;
    }

    /**
     * A GGUF model. Which, when the name gives no file: the only one of the repository; of several the one of type Q4_K_M. Of a model in
     * several files all are there then, and the first is returned.
     *
     * @param name what was named
     * @return the file in the cache
     * @throws HubException naming the files there are when that does not decide it
     */
    public Path model(HubName name) {
        Arguments.given(name, "name");
        if (name.file() != null
                && name.file().endsWith(".gguf")
                && Choice.parts(Choice.gguf(name, List.of(name.file()))).size() == 1) {
            return file(name, name.file());
        }
        Contents contents = contents(name);
        String first = Choice.gguf(name, contents.files);
        List<String> parts = Choice.parts(first);
        if (name.file() == null
                && contents.files.stream()
                                .filter(other -> other.endsWith(".gguf"))
                                .count()
                        > parts.size()) {
            listener.note("of the GGUF files in " + name.inWords() + ", takes " + first);
        }
        for (String part : parts) {
            if (!contents.files.contains(part)) {
                throw new HubException(
                        name.inWords() + " holds " + first + ", but not " + part + ", another file of the same model");
            }
            contents.get(part);
        }
        return contents.get(first);
    }

    /**
     * An adapter: its folder (Lorica's or PEFT's), or a GGUF LoRA file. The file of the name may be a folder of the repository.
     *
     * @param name what was named
     * @return the folder or file in the cache
     */
    public Path adapter(HubName name) {
        Arguments.given(name, "name");
        if (name.file() != null && name.file().endsWith(".gguf")) {
            return file(name, name.file());
        }
        Contents contents = contents(name);
        String prefix = name.file() != null && !contents.files.contains(name.file()) ? name.file() + "/" : "";
        for (List<String> needed : List.of(ADAPTER_GGUF, ADAPTER_PEFT)) {
            List<String> paths = needed.stream().map(file -> prefix + file).toList();
            if (!contents.files.containsAll(paths)) {
                continue;
            }
            Path found = null;
            for (String path : paths) {
                found = contents.get(path);
            }
            if (contents.files.contains(prefix + ADAPTER_SIDE_FILE)) {
                contents.get(prefix + ADAPTER_SIDE_FILE);
            }
            return found.getParent();
        }
        if (contents.files.contains(prefix + "adapter_model.bin")) {
            throw new HubException(name + " holds its adapter as adapter_model.bin, a format that can run programs; "
                    + "adapter_model.safetensors is read");
        }
        if (contents.files.stream().noneMatch(file -> file.endsWith(".gguf"))) {
            throw new HubException(name
                    + " holds no adapter, neither adapter_config.json with adapter_model.safetensors nor a GGUF file"
                    + (contents.files.isEmpty() ? "" : "; it holds " + Choice.listed(contents.files)));
        }
        return contents.get(Choice.gguf(name, contents.files));
    }

    /**
     * A model as Hugging Face's own programs have it: {@code config.json}, {@code model.safetensors}, {@code tokenizer.json}.
     *
     * @param name what was named
     * @return the folder in the cache
     */
    public Path folder(HubName name) {
        Arguments.given(name, "name");
        Contents contents = contents(name);
        if (!contents.files.contains("config.json")
                || contents.files.stream().noneMatch(file -> file.endsWith(".safetensors"))) {
            throw new HubException(name.inWords() + " holds no model in safetensors"
                    + (contents.files.isEmpty() ? "" : "; it holds " + Choice.listed(contents.files)));
        }
        for (String file : contents.files) {
            if (MODEL_FILES.matcher(file).matches()) {
                contents.get(file);
            }
        }
        return contents.get("config.json").getParent();
    }

    /**
     * The files of a part of a data set, in their order. Which, when the name gives none: {@code train}, or the only one there is. Parquet
     * files of the data set are taken, or else those that the hub has made of it; another file is taken when it is named.
     *
     * @param given what was named
     * @return the files in the cache
     * @throws HubException naming what there is when that does not decide it
     */
    public List<Path> data(HubName given) {
        Arguments.given(given, "given");
        HubName name = given.ofData();
        if (name.file() != null && DATA_FILE.matcher(name.file()).find()) {
            return List.of(file(name, name.file()));
        }
        Contents contents = contents(name);
        if (contents.files.stream().noneMatch(DataParts::isParquet)
                && name.revision().equals("main")) {
            HubName converted = name.at(CONVERTED);
            try {
                Contents made = contents(converted);
                return made.getAll(DataParts.choose(converted, made.files));
            } catch (HubException | FileAccessException e) {
                throw new HubException(
                        name.inWords() + " holds no Parquet files, and the hub has made none of it"
                                + (contents.files.isEmpty() ? "" : "; it holds " + Choice.listed(contents.files))
                                + "; a file is named as " + name.inWords() + ":FILE",
                        e);
            }
        }
        return contents.getAll(DataParts.choose(name, contents.files));
    }

    /**
     * One file of a repository, by its path there.
     *
     * @param name the repository
     * @param path of the file in it
     * @return the file in the cache
     */
    public Path file(HubName name, String path) {
        Arguments.given(name, "name");
        Arguments.given(path, "path");
        HubCache cache = new HubCache(config.cache(), name);
        Path cached = cache.find(cache.commit(name), path);
        if (cached != null && name.isCommit()) {
            return cached;
        }
        if (config.offline()) {
            return require(cached, name, path);
        }
        try {
            return fetch(cache, name, path);
        } catch (IOException e) {
            return fallBack(cached, name, e);
        }
    }

    /**
     * Puts files into a repository, all in one commit; the repository is made if there is none. {@code README.md} is left out where the
     * repository has one.
     *
     * @param name      the repository; its file and revision do not count
     * @param files     what they are called in the repository, and where they are here
     * @param summary   of the commit, in one line
     * @param isPrivate whether a new repository is for its owner alone
     * @return where the commit is to be seen
     * @throws HubException if the hub does not take them, as without a token that may write
     */
    public String upload(HubName name, Map<String, Path> files, String summary, boolean isPrivate) {
        Arguments.given(name, "name");
        Map<String, Path> all = new LinkedHashMap<>(Arguments.all(files, "files"));
        Arguments.given(summary, "summary");
        Arguments.check(!all.isEmpty(), "files", "empty", "at least one");
        if (config.offline()) {
            throw new HubException("nothing is uploaded to " + name.inWords() + ": HF_HUB_OFFLINE forbids it");
        }
        if (config.token() == null) {
            throw new HubException("to upload to " + name.inWords()
                    + ", set HF_TOKEN to the token of an account that may write there");
        }
        Upload upload = new Upload(client, listener, name);
        try {
            upload.create(isPrivate);
            if (all.containsKey(CARD) && client.list(name).files().contains(CARD)) {
                all.remove(CARD);
                listener.note(name.inWords() + " has a card already, which stays");
            }
            return upload.commit(all, summary);
        } catch (IOException e) {
            throw new HubException(
                    "the upload to " + name.inWords() + " at "
                            + config.endpoint().getHost() + " failed: " + reason(e),
                    e);
        }
    }

    // ----

    /** What a repository holds, at one commit. */
    private final class Contents {
        private final HubName name;
        private final List<String> files;

        private final String commit;

        Contents(HubName name, String commit, List<String> files) {
            this.name = name;
            this.commit = commit;
            this.files = files;
        }

        List<Path> getAll(List<String> paths) {
            return paths.stream().map(this::get).toList();
        }

        Path get(String path) {
            Path local = file(name.at(commit), path);
            if (!config.offline()) {
                new HubCache(config.cache(), name).setCommit(name, commit);
            }
            return local;
        }
    }

    private Contents contents(HubName name) {
        HubCache cache = new HubCache(config.cache(), name);
        String cached = cache.commit(name);
        if (config.offline()) {
            return contents(cache, name, cached);
        }
        try {
            HubClient.Listing listing = client.list(name);
            return new Contents(name, listing.commit(), listing.files());
        } catch (IOException e) {
            if (cached == null || cache.files(cached).isEmpty()) {
                throw unreachable(name, e);
            }
            listener.note(config.endpoint().getHost() + " cannot be reached (" + reason(e) + "); takes "
                    + name.inWords() + " from the cache");
            return contents(cache, name, cached);
        }
    }

    private Contents contents(HubCache cache, HubName name, String commit) {
        List<String> files = commit == null ? List.of() : cache.files(commit);
        if (files.isEmpty()) {
            throw notCached(name.inWords());
        }
        return new Contents(name, commit, files);
    }

    private Path fetch(HubCache cache, HubName name, String path) throws IOException {
        HubClient.Metadata metadata = client.metadata(name, path);
        String commit = metadata.commit();
        Path there = cache.find(commit, path);
        if (there == null) {
            cache.exclusively(metadata.etag(), listener, () -> {
                if (!cache.has(metadata.etag(), metadata.size())) {
                    new Download(client, config, listener, name.at(commit), path, metadata, cache).run();
                }
            });
            there = cache.link(commit, path, metadata.etag());
        }
        cache.setCommit(name, commit);
        return there;
    }

    private Path fallBack(Path cached, HubName name, IOException e) {
        if (cached == null) {
            throw unreachable(name, e);
        }
        listener.note(config.endpoint().getHost() + " cannot be reached (" + reason(e) + "); takes " + name
                + " from the cache");
        return cached;
    }

    private Path require(Path cached, HubName name, String path) {
        if (cached == null) {
            throw notCached(name.inWords() + ":" + path);
        }
        return cached;
    }

    private FileAccessException notCached(String what) {
        return new FileAccessException(
                what + " is not in the cache, " + config.cache() + ", and HF_HUB_OFFLINE forbids to download it");
    }

    private HubException unreachable(HubName name, IOException e) {
        return new HubException(
                config.endpoint().getHost() + " cannot be reached for " + name + ", which is not in the cache: "
                        + reason(e),
                e);
    }

    /** The reason in words; Java often gives none. */
    static String reason(IOException e) {
        if (e instanceof HttpTimeoutException) {
            return "no answer in time";
        }
        for (Throwable cause = e; cause != null; cause = cause.getCause()) {
            if (cause instanceof UnknownHostException
                    || cause.getClass().getSimpleName().equals("UnresolvedAddressException")) {
                return "there is no such host";
            }
        }
        if (e instanceof ConnectException) {
            return "connection refused";
        }
        return e.getMessage() == null ? e.getClass().getSimpleName() : e.getMessage();
    }
}
