package dev.lorica.hub;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import dev.lorica.exceptions.HubException;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Files on their way into a repository, as one commit. The hub says which of them are large; those are sent first, to where it
 * wants them, and the commit names them by their checksums. Small ones are in the commit itself, which is a line of JSON for each.
 */
final class Upload {
    /** What the hub looks at to tell texts from other files. */
    private static final int SAMPLE_BYTES = 512;

    private static final int PIECE = 1 << 18;

    private static final Map<String, String> JSON_TYPE = Map.of("Content-Type", "application/json");
    private static final Map<String, String> LINES_TYPE = Map.of("Content-Type", "application/x-ndjson");
    private static final String LFS_TYPE = "application/vnd.git-lfs+json";
    private static final JsonMapper JSON = new JsonMapper();

    private final HubClient client;
    private final HubListener listener;
    private final HubName name;

    Upload(HubClient client, HubListener listener, HubName name) {
        this.client = client;
        this.listener = listener;
        this.name = name;
    }

    /** Makes the repository; one that is there stays as it is. */
    void create(boolean isPrivate) throws IOException {
        client.post(
                name,
                client.address("/api/repos/create"),
                JSON_TYPE,
                bytes(Map.of("name", name.repository(), "organization", name.owner(), "private", isPrivate)));
    }

    /** Where the commit is to be seen. */
    String commit(Map<String, Path> files, String summary) throws IOException {
        ByteArrayOutputStream lines = new ByteArrayOutputStream();
        add(lines, "header", Map.of("summary", summary, "description", ""));
        Map<String, Path> large = large(files);
        Map<String, String> checksums = send(large);
        for (Map.Entry<String, Path> file : files.entrySet()) {
            Map<String, Object> value = new LinkedHashMap<>();
            value.put("path", file.getKey());
            if (large.containsKey(file.getKey())) {
                value.put("algo", "sha256");
                value.put("oid", checksums.get(file.getKey()));
                value.put("size", Files.size(file.getValue()));
                add(lines, "lfsFile", value);
            } else {
                value.put("encoding", "base64");
                value.put("content", Base64.getEncoder().encodeToString(Files.readAllBytes(file.getValue())));
                add(lines, "file", value);
            }
        }
        JsonNode answer = client.post(name, ofRevision("commit"), LINES_TYPE, lines.toByteArray());
        String url = answer.path("commitUrl").asText("");
        if (url.isEmpty()) {
            throw new HubException("the hub does not say that " + name.inWords() + " has the new files");
        }
        return url;
    }

    private URI ofRevision(String what) {
        return client.address("/api/models/" + name.id() + "/" + what + "/" + HubClient.encoded(name.revision()));
    }

    private static void add(ByteArrayOutputStream lines, String key, Object value) {
        lines.writeBytes(bytes(Map.of("key", key, "value", value)));
        lines.write('\n');
    }

    private static byte[] bytes(Object json) {
        try {
            return JSON.writeValueAsBytes(json);
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
    }

    private Map<String, Path> large(Map<String, Path> files) throws IOException {
        List<Map<String, Object>> asked = new ArrayList<>();
        for (Map.Entry<String, Path> file : files.entrySet()) {
            try (InputStream in = Files.newInputStream(file.getValue())) {
                asked.add(Map.of(
                        "path",
                        file.getKey(),
                        "size",
                        Files.size(file.getValue()),
                        "sample",
                        Base64.getEncoder().encodeToString(in.readNBytes(SAMPLE_BYTES))));
            }
        }
        JsonNode answer = client.post(name, ofRevision("preupload"), JSON_TYPE, bytes(Map.of("files", asked)));
        Map<String, Path> large = new LinkedHashMap<>();
        for (JsonNode file : answer.path("files")) {
            String path = file.path("path").asText();
            if (file.path("uploadMode").asText().equals("lfs") && files.containsKey(path)) {
                large.put(path, files.get(path));
            }
        }
        return large;
    }

    /** Sends what the hub does not have yet. Returns the checksums. */
    private Map<String, String> send(Map<String, Path> files) throws IOException {
        Map<String, String> checksums = new LinkedHashMap<>();
        Map<String, Path> byChecksum = new LinkedHashMap<>();
        List<Map<String, Object>> objects = new ArrayList<>();
        for (Map.Entry<String, Path> file : files.entrySet()) {
            String checksum = sha256(file.getValue());
            checksums.put(file.getKey(), checksum);
            byChecksum.put(checksum, file.getValue());
            objects.add(Map.of("oid", checksum, "size", Files.size(file.getValue())));
        }
        if (objects.isEmpty()) {
            return checksums;
        }
        JsonNode answer = client.post(
                name,
                client.address("/" + name.id() + ".git/info/lfs/objects/batch"),
                Map.of("Content-Type", LFS_TYPE, "Accept", LFS_TYPE),
                bytes(Map.of(
                        "operation",
                        "upload",
                        "transfers",
                        List.of("basic"),
                        "hash_algo",
                        "sha256",
                        "ref",
                        Map.of("name", name.revision()),
                        "objects",
                        objects)));
        for (JsonNode object : answer.path("objects")) {
            Path file = byChecksum.get(object.path("oid").asText());
            if (file == null || object.has("error")) {
                throw new HubException("the hub does not take "
                        + (file == null ? "a file" : file.getFileName()) + " for " + name.inWords() + ": "
                        + object.path("error").path("message").asText("it asks for another"));
            }
            send(file, object);
        }
        return checksums;
    }

    private static String sha256(Path file) throws IOException {
        try (InputStream in = Files.newInputStream(file)) {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            byte[] buffer = new byte[PIECE];
            for (int n = in.read(buffer); n >= 0; n = in.read(buffer)) {
                digest.update(buffer, 0, n);
            }
            return HexFormat.of().formatHex(digest.digest());
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e); // every JDK has it
        }
    }

    private void send(Path file, JsonNode object) throws IOException {
        JsonNode upload = object.path("actions").path("upload");
        if (upload.isMissingNode()) {
            return; // the hub has these bytes already
        }
        listener.uploading(file.getFileName().toString(), Files.size(file));
        client.put(name, address(upload), headers(upload), file);
        JsonNode verify = object.path("actions").path("verify");
        if (!verify.isMissingNode()) {
            Map<String, String> headers = new LinkedHashMap<>(headers(verify));
            headers.putIfAbsent("Content-Type", LFS_TYPE);
            client.post(
                    name,
                    address(verify),
                    headers,
                    bytes(Map.of("oid", object.path("oid").asText(), "size", Files.size(file))));
        }
    }

    private URI address(JsonNode action) {
        try {
            URI address = URI.create(action.path("href").asText());
            if (address.getHost() != null) {
                return address;
            }
        } catch (IllegalArgumentException e) {
            // the same as no address
        }
        throw new HubException("the hub does not say where the files of " + name.inWords() + " are to go");
    }

    private static Map<String, String> headers(JsonNode action) {
        Map<String, String> headers = new LinkedHashMap<>();
        action.path("header")
                .fields()
                .forEachRemaining(
                        header -> headers.put(header.getKey(), header.getValue().asText()));
        headers.keySet()
                .removeIf(header -> header.equalsIgnoreCase("Authorization")
                        || header.equalsIgnoreCase("Content-Length")
                        || header.equalsIgnoreCase("Host"));
        return headers;
    }
}
