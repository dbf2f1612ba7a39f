package dev.lorica.cli;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.serve.LoricaServer;
import dev.lorica.serve.ServeConfig;
import dev.lorica.serve.ServerAddress;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code lorica serve}: a model and its adapters behind OpenAI's HTTP interface. */
@Command(
        name = "serve",
        header = "Serve a model and its adapters to OpenAI's clients, over HTTP.",
        description = {
            "",
            "Answers /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/models, /tokenize, /detokenize,"
                    + " /health and /metrics. A request chooses an adapter by its name, as its model. Ctrl-C ends it."
        },
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        customSynopsis = "lorica serve --model FILE [--adapter NAME=DIR]… [OPTION]…",
        optionListHeading = "%nWhat to serve:%n",
        footerHeading = "%nExamples:%n",
        footer = {
            "  lorica serve --model llama.gguf",
            "  lorica serve --model llama.gguf -a austen=my-adapter -a other-adapter",
            "  LORICA_API_KEY=… lorica serve --model llama.gguf --host 0.0.0.0 --port 8000"
        })
final class ServeCommand implements Callable<Integer> {
    private static final String KEY = "LORICA_API_KEY";
    private static final ServeConfig DEFAULTS = ServeConfig.builder().build();

    private final Terminal terminal;

    @Option(
            names = {"-m", "--model"},
            required = true,
            paramLabel = "FILE",
            description = "The GGUF model" + HubFiles.OR_HUB + ".")
    private Path model;

    @Option(
            names = {"-a", "--adapter"},
            paramLabel = "[NAME=]DIR|FILE",
            description =
                    "An adapter trained on it, and what requests call it. Default: as its folder. May be given several"
                            + " times.")
    private List<String> adapters = new ArrayList<>();

    @Option(
            names = "--served-model-name",
            paramLabel = "NAME",
            description = "What requests call the model itself. Default: as its file, without .gguf.")
    private String name;

    @Option(
            names = "--parallel",
            paramLabel = "N",
            description = "Texts generated at once; more wait. Default: ${DEFAULT-VALUE}")
    private int parallel = DEFAULTS.texts();

    @Option(
            names = "--ctx-size",
            paramLabel = "N",
            description =
                    "Most tokens of a text, its prompt included; memory is taken for --parallel texts of so many, and once"
                            + " more for each prefix or prompt in use. Default: ${DEFAULT-VALUE}, or what the model has")
    private int contextSize = DEFAULTS.positions();

    @Option(
            names = "--queue",
            paramLabel = "N",
            description = "Texts that may wait; what comes then is refused. Default: ${DEFAULT-VALUE}")
    private int queue = DEFAULTS.waiting();

    @Option(
            names = "--host",
            paramLabel = "ADDRESS",
            description =
                    "Where to listen. Anything but this machine alone needs an API key. Default: ${DEFAULT-VALUE}")
    private String host = DEFAULTS.host();

    @Option(names = "--port", paramLabel = "N", description = "0: one that is free. Default: ${DEFAULT-VALUE}")
    private int port = DEFAULTS.port();

    @Option(
            names = "--api-key",
            paramLabel = "KEY",
            description = "What requests have to bring as Authorization: Bearer KEY. Other users of this machine see"
                    + " command lines; the environment variable " + KEY + " says it to nobody.")
    private String apiKey;

    @Option(
            names = "--data-folder",
            paramLabel = "DIR",
            description =
                    "A folder from which requests may load adapters, with /v1/load_lora_adapter, and runs of the page read"
                            + " data and models. Default: none may.")
    private Path dataFolder;

    @Option(
            names = "--tuning-folder",
            paramLabel = "DIR",
            description =
                    "Offers tuning at /v1/tuning to whoever may ask; adapters are saved below this folder. Default:"
                            + " nothing is tuned.")
    private Path tuningFolder;

    @Option(
            names = "--output-folder",
            paramLabel = "DIR",
            description =
                    "A folder for the runs that are started on the page, which needs --data-folder too. Default: nothing is"
                            + " trained from there.")
    private Path outputFolder;

    @Option(names = "--no-page", description = "No page at /, only the interfaces for programs.")
    private boolean noPage;

    @Option(
            names = "--allow-origin",
            paramLabel = "ORIGIN",
            description = "A site whose pages may use it, such as https://example.org; may be given several times.")
    private List<String> origins = new ArrayList<>();

    @Option(
            names = "--allow-host",
            paramLabel = "NAME",
            description = "A name by which a proxy on this machine calls it; may be given several times.")
    private List<String> hosts = new ArrayList<>();

    @Option(
            names = "--request-timeout",
            paramLabel = "SECONDS",
            description = "The most that a request may take, waiting included. Default: 600")
    private long timeLimit = DEFAULTS.timeLimit().toSeconds();

    @Mixin
    private DeviceOptions device = new DeviceOptions();

    @Mixin
    private CommonOptions common = new CommonOptions();

    ServeCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        String key = apiKey != null ? apiKey : System.getenv(KEY);
        if (dataFolder != null && !Files.isDirectory(dataFolder)) {
            throw new IllegalArgumentException("--data-folder " + dataFolder + " is no folder");
        }
        if (outputFolder != null && dataFolder == null) {
            throw new IllegalArgumentException("--output-folder needs --data-folder, which says what runs may read");
        }
        if (outputFolder != null && noPage) {
            throw new IllegalArgumentException("--output-folder and --no-page exclude each other");
        }
        makeOutputFolder();
        ServeConfig config = ServeConfig.builder()
                .host(host)
                .port(port)
                .apiKey(key == null || key.isBlank() ? null : key)
                .modelName(name)
                .texts(parallel)
                .positions(contextSize)
                .waiting(queue)
                .dataFolder(dataFolder)
                .allowedOrigins(origins)
                .allowedHosts(hosts)
                .timeLimit(Duration.ofSeconds(timeLimit))
                .build();
        Map<String, Path> named = new LinkedHashMap<>();
        adapters.forEach(adapter -> name(adapter, named));
        List<Adapter> open = new ArrayList<>();
        CountDownLatch end = new CountDownLatch(1);
        try (ServerAddress address = ServerAddress.listen(config);
                Model base = AdapterName.baseOf(
                        terminal,
                        model,
                        device.config(),
                        named.values().stream()
                                .map(path -> HubFiles.adapter(terminal, path))
                                .toList())) {
            try (LoricaServer server = new LoricaServer(base, address);
                    Interrupt interrupt = new Interrupt(end::countDown)) {
                for (Map.Entry<String, Path> adapter : named.entrySet()) {
                    open.add(Adapter.load(base, HubFiles.adapter(terminal, adapter.getValue())));
                    server.add(adapter.getKey(), open.get(open.size() - 1));
                }
                if (tuningFolder != null) {
                    server.tuning(base, tuningFolder);
                }
                if (!noPage) {
                    server.studio(new StudioProgram(device.config()), outputFolder);
                }
                server.start();
                say(server, named);
                await(end);
            } finally {
                open.forEach(Adapter::close);
            }
        }
        return ExitCode.OK;
    }

    private void makeOutputFolder() {
        try {
            if (outputFolder != null) {
                Files.createDirectories(outputFolder);
            }
        } catch (IOException e) {
            throw new IllegalArgumentException("--output-folder " + outputFolder + " cannot be made");
        }
    }

    /** Until Ctrl-C, or until whoever has started this in a program of his own interrupts it. */
    private static void await(CountDownLatch end) {
        try {
            end.await();
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    /** Puts {@code NAME=PATH}, or a path that exists, with its name. */
    private static void name(String adapter, Map<String, Path> named) {
        int at = adapter.indexOf('=');
        boolean whole = at <= 0 || Files.exists(Path.of(adapter));
        Path path = Path.of(whole ? adapter : adapter.substring(at + 1));
        Path last = path.toAbsolutePath().normalize().getFileName();
        String name = whole ? (last == null ? "" : last.toString()) : adapter.substring(0, at);
        if (named.put(name, path) != null) {
            throw new IllegalArgumentException(
                    "two adapters are called " + name + "; name them with --adapter NAME=DIR");
        }
    }

    private void say(LoricaServer server, Map<String, Path> named) {
        terminal.text().println("Serving " + server.modelName() + " at " + server.uri() + "/v1");
        named.forEach((adapter, path) -> terminal.text().println("  with the adapter " + adapter + ", of " + path));
        if (!noPage) {
            terminal.text().println("The studio is the page " + server.uri() + "/");
        }
        terminal.text().println("Ctrl-C ends it.");
        terminal.text().flush();
        if (terminal.json()) {
            terminal.printJson(Map.of(
                    "url", server.uri() + "/v1", "model", server.modelName(), "adapters", List.copyOf(named.keySet())));
        }
    }
}
