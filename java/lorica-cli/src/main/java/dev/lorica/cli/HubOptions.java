package dev.lorica.cli;

import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.AdapterMetadata;
import dev.lorica.cli.report.ModelCard;
import dev.lorica.exceptions.HubException;
import dev.lorica.hub.Hub;
import dev.lorica.hub.HubConfig;
import dev.lorica.hub.HubListener;
import dev.lorica.hub.HubName;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import picocli.CommandLine.Option;

/** An adapter's way to Hugging Face's hub. */
@Section("Hub")
final class HubOptions {
    private static final List<String> FILES = List.of(
            Adapter.FILE_NAME,
            Adapter.PEFT_FILE_NAME,
            Adapter.PEFT_CONFIG_NAME,
            Adapter.ADAPTERHUB_FILE_NAME,
            AdapterMetadata.FILE_NAME,
            ModelCard.FILE_NAME);

    @Option(
            names = "--push-to-hub",
            paramLabel = "OWNER/REPO",
            description =
                    "Upload the adapter and its card to this repository on Hugging Face's hub, which is made if there"
                            + " is none; HF_TOKEN says who you are.")
    String pushToHub;

    @Option(names = "--hub-private", description = "A new repository is for its owner alone.")
    boolean isPrivate;

    /** Before anything is computed: whether there is a name, and somebody to upload as. */
    void check() {
        if (pushToHub == null) {
            if (isPrivate) {
                throw new IllegalArgumentException("--hub-private is for --push-to-hub");
            }
            return;
        }
        HubConfig config = HubConfig.fromEnvironment();
        if (config.offline() || config.token() == null) {
            throw new HubException("--push-to-hub " + pushToHub + " cannot be done: "
                    + (config.offline()
                            ? "HF_HUB_OFFLINE forbids it"
                            : "set HF_TOKEN to the token of an account that may write there"));
        }
        name();
    }

    private HubName name() {
        HubName name = HubName.parse(HubName.is(pushToHub) ? pushToHub : "hf:" + pushToHub);
        if (name.file() != null) {
            throw new IllegalArgumentException(
                    "--push-to-hub " + pushToHub + ": a repository is meant, not a file in it");
        }
        return name;
    }

    /** Uploads what is in an adapter's folder of its own. */
    void push(Terminal terminal, Path folder) {
        if (pushToHub == null) {
            return;
        }
        HubName name = name();
        Map<String, Path> files = new LinkedHashMap<>();
        for (String file : FILES) {
            if (Files.exists(folder.resolve(file))) {
                files.put(file, folder.resolve(file));
            }
        }
        HubListener listener = new HubListener() {
            @Override
            public void uploading(String file, long total) {
                terminal.err().println("uploading " + file + ", " + Format.bytes(total));
            }

            @Override
            public void note(String text) {
                terminal.err().println("note: " + text);
            }
        };
        String seenAt = new Hub(HubConfig.fromEnvironment(), listener)
                .upload(name, files, "Upload of an adapter by Lorica", isPrivate);
        terminal.out().println("Uploaded to " + seenAt);
    }
}
