package dev.lorica.cli;

import dev.lorica.files.GgufFile;
import dev.lorica.hub.Hub;
import dev.lorica.hub.HubConfig;
import dev.lorica.hub.HubListener;
import dev.lorica.hub.HubName;
import java.nio.file.Path;
import java.util.List;
import java.util.function.BiFunction;

/** Models and adapters that options name, downloaded first where the name is one on the hub. */
final class HubFiles {
    /** What options say that take such names. */
    static final String OR_HUB = ", or hf:OWNER/REPO[@REVISION][:FILE] on Hugging Face's hub";

    private HubFiles() {}

    static Path model(Terminal terminal, Path path) {
        return local(terminal, path, Hub::model, Misnamed.What.MODEL);
    }

    /** A model, or the file or folder of an adapter. */
    static Path modelOrAdapter(Terminal terminal, Path path) {
        return local(terminal, path, Hub::model, Misnamed.What.MODEL_OR_ADAPTER);
    }

    static Path adapter(Terminal terminal, Path path) {
        return local(terminal, path, Hub::adapter, Misnamed.What.ADAPTER);
    }

    static Path folder(Terminal terminal, Path path) {
        return local(terminal, path, Hub::folder, Misnamed.What.FOLDER);
    }

    /** Downloads what is named on the hub, so that reading it finds it here. */
    static void fetchData(Terminal terminal, List<Path> paths) {
        for (Path path : paths) {
            if (HubName.is(path.toString())) {
                DownloadLine line = new DownloadLine(terminal);
                try {
                    new Hub(HubConfig.fromEnvironment(), line).data(HubName.parse(path.toString()));
                } finally {
                    line.end();
                }
            }
        }
    }

    /** Size of a model, of all its files where it has several. */
    static long bytes(Path model) {
        try (GgufFile file = GgufFile.open(model)) {
            return file.bytes();
        }
    }

    private static Path local(Terminal terminal, Path path, BiFunction<Hub, HubName, Path> find, Misnamed.What what) {
        if (path == null) {
            return null;
        }
        if (!HubName.is(path.toString())) {
            Misnamed.check(path, what);
            return path;
        }
        HubName name = HubName.parse(path.toString());
        DownloadLine line = new DownloadLine(terminal);
        try {
            return find.apply(new Hub(HubConfig.fromEnvironment(), line), name);
        } finally {
            line.end();
        }
    }

    /** A download as it goes, on standard error: a line that changes on a terminal, one line for each file elsewhere. */
    private static final class DownloadLine implements HubListener {
        private static final String CLEAR = "\r\u001b[K";
        private static final long MIN_INTERVAL_NANOS = 100_000_000;

        private final Terminal terminal;
        private final boolean moving;
        /** Whether the cursor stands behind a line that is to be drawn over. */
        private boolean drawn;

        private String file;
        private long begun;
        private long begunAt;
        private long drawnAt;

        DownloadLine(Terminal terminal) {
            this.terminal = terminal;
            this.moving = terminal.errIsTerminal() && !"dumb".equals(System.getenv("TERM"));
        }

        @Override
        public void downloading(String name, long done, long total) {
            long now = System.nanoTime();
            if (!name.equals(file)) {
                file = name;
                begun = done;
                begunAt = now;
                drawnAt = 0;
                if (!moving) {
                    terminal.err().println("downloading " + name + ", " + Format.bytes(total));
                }
            }
            if (!moving || done < total && now - drawnAt < MIN_INTERVAL_NANOS) {
                return;
            }
            drawnAt = now;
            double seconds = (now - begunAt) / 1e9;
            double rate = seconds > 0 ? (done - begun) / seconds : 0;
            String left = rate > 0 && done < total ? "  ETA " + Format.duration((total - done) / rate) : "";
            terminal.err()
                    .print(CLEAR + "downloading " + name + "  " + Format.bytes(done) + " of " + Format.bytes(total)
                            + "  " + Format.bytes(Math.round(rate)) + "/s" + left
                            + (done == total ? System.lineSeparator() : ""));
            terminal.err().flush();
            drawn = done < total;
        }

        @Override
        public void note(String text) {
            terminal.err().println((drawn ? CLEAR : "") + "note: " + text);
            drawn = false;
        }

        void end() {
            if (drawn) {
                terminal.err().println();
            }
        }
    }
}
