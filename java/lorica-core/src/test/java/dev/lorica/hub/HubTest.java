package dev.lorica.hub;

import static dev.lorica.hub.FakeHub.COMMIT;
import static dev.lorica.hub.FakeHub.status;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.lorica.Model;
import dev.lorica.TestModels;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.HubException;
import dev.lorica.exceptions.LoricaException;
import java.io.IOException;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Against a hub that behaves, and one that does not. */
@Timeout(600)
class HubTest {
    private static final String TOKEN = "hf_secret";
    private static final HubName REPO = HubName.parse("hf:test/repo");
    /** How long the hub may be silent where it is not meant to be: requests are counted, and none is made again on a busy machine. */
    private static final Duration PATIENCE = Duration.ofSeconds(120);

    @TempDir
    Path cache;

    private final FakeHub fake = new FakeHub();
    private final byte[] weights = random(500_000);
    private final List<Duration> pauses = new ArrayList<>();
    private final List<String> notes = new ArrayList<>();

    @AfterEach
    void stop() {
        fake.close();
    }

    // ---- as it should be

    @Test
    void filesLieWhereHuggingFacesProgramsLookForThem() throws IOException {
        fake.with("sub/model.gguf", weights).with("config.json");

        Path model = hub().file(REPO, "sub/model.gguf");
        Path config = hub().file(REPO, "config.json");

        Path repository = cache.resolve("models--test--repo");
        assertThat(model)
                .isEqualTo(repository.resolve("snapshots/" + COMMIT + "/sub/model.gguf"))
                .hasBinaryContent(weights);
        assertThat(Files.readSymbolicLink(model)).isEqualTo(Path.of("../../../blobs/" + fake.etag("sub/model.gguf")));
        assertThat(Files.readSymbolicLink(config)).isEqualTo(Path.of("../../blobs/" + fake.etag("config.json")));
        assertThat(repository.resolve("refs/main")).hasContent(COMMIT);
        assertThat(repository.resolve("blobs").toFile().list())
                .containsExactlyInAnyOrder(fake.etag("sub/model.gguf"), fake.etag("config.json"));

        // What is there is not sent again, and for a commit nobody is asked.
        hub().file(REPO, "sub/model.gguf");
        assertThat(fake.count("GET", "model.gguf")).isEqualTo(1);
        int before = fake.requests.size();
        hub().file(HubName.parse("hf:test/repo@" + COMMIT), "sub/model.gguf");
        assertThat(fake.requests).hasSize(before);
    }

    @Test
    void filesAreUploadedInOneCommitLargeOnesByTheirChecksums() throws Exception {
        Path large = Files.write(cache.resolve("adapter.gguf"), weights);
        Path small = Files.writeString(cache.resolve("adapter_config.json"), "{\"r\": 8}");
        Path card = Files.writeString(cache.resolve("card"), "# Mine\n");
        Map<String, Path> files = new LinkedHashMap<>();
        files.put("adapter.gguf", large);
        files.put("adapter_config.json", small);
        files.put("README.md", card);
        fake.nextFile(status(503)); // the storage has a bad moment

        String seenAt = hub().upload(REPO, files, "An adapter", true);

        assertThat(seenAt).isEqualTo(fake.address() + "/test/repo/commit/" + COMMIT);
        assertThat(fake.bodies.get("/api/repos/create"))
                .contains("\"name\":\"repo\"", "\"organization\":\"test\"", "\"private\":true");
        String checksum = fake.etag("adapter.gguf", weights);
        assertThat(fake.stored.get(checksum)).isEqualTo(weights);
        assertThat(fake.bodies).containsKey("/verify/" + checksum);
        List<String> lines =
                fake.bodies.get("/api/models/test/repo/commit/main").lines().toList();
        assertThat(lines).hasSize(4);
        assertThat(lines.get(0)).contains("\"key\":\"header\"", "\"summary\":\"An adapter\"");
        assertThat(lines.get(1)).contains("\"lfsFile\"", "\"path\":\"adapter.gguf\"", checksum, "\"size\":500000");
        assertThat(lines.get(2))
                .contains(
                        "\"file\"",
                        "adapter_config.json",
                        Base64.getEncoder().encodeToString("{\"r\": 8}".getBytes(StandardCharsets.UTF_8)));
        // The token goes to the hub, and not to where the bytes lie.
        assertThat(fake.requests)
                .allMatch(request -> request.host().equals("hub") == (request.authorization() != null));
    }

    @Test
    void whatTheHubHasIsNotSentAgainAndItsCardStays() throws Exception {
        Path large = Files.write(cache.resolve("adapter.gguf"), weights);
        Path card = Files.writeString(cache.resolve("card"), "# Mine\n");
        fake.exists = true;
        fake.with("README.md");
        fake.stored.put(fake.etag("adapter.gguf", weights), weights);

        hub().upload(REPO, Map.of("adapter.gguf", large, "README.md", card), "An adapter", false);

        assertThat(fake.requests).noneMatch(request -> request.method().equals("PUT"));
        assertThat(fake.bodies.get("/api/models/test/repo/commit/main")).doesNotContain("README.md");
        assertThat(notes).contains("hf:test/repo has a card already, which stays");
    }

    @Test
    void anUploadThatIsNotAllowedSaysWhatIsNeeded() throws Exception {
        Path file = Files.writeString(cache.resolve("a.json"), "{}");
        fake.nextListing(status(403));
        assertThatThrownBy(() -> hub().upload(REPO, Map.of("a.json", file), "x", false))
                .isInstanceOf(HubException.class)
                .hasMessageContaining("the account of the token in use may not write it");
        HubConfig nobody = new HubConfig(fake.address(), cache, null, false, PATIENCE);
        assertThatThrownBy(() -> new Hub(nobody, HubListener.SILENT).upload(REPO, Map.of("a.json", file), "x", false))
                .isInstanceOf(HubException.class)
                .hasMessageContaining("set HF_TOKEN to the token of an account that may write there");
    }

    @Test
    void aDataSetIsItsTrainingPartUnlessAnotherIsNamed() {
        fake.dataSet = true;
        fake.with("README.md")
                .with("data/train-00000-of-00002.parquet")
                .with("data/train-00001-of-00002-0123456789abcdef.parquet")
                .with("data/test-00000-of-00001.parquet")
                .with("extra.jsonl");

        assertThat(hub().data(REPO))
                .extracting(path -> path.getFileName().toString())
                .containsExactly("train-00000-of-00002.parquet", "train-00001-of-00002-0123456789abcdef.parquet");
        assertThat(hub().data(HubName.parse("hf:test/repo:test")))
                .containsExactly(cache.resolve(
                        "datasets--test--repo/snapshots/" + COMMIT + "/data/test-00000-of-00001.parquet"));
        assertThat(hub().data(HubName.parse("hf:test/repo:extra.jsonl"))).hasSize(1);
        assertThatThrownBy(() -> hub().data(HubName.parse("hf:test/repo:dev")))
                .isInstanceOf(HubException.class)
                .hasMessage(
                        "hf:test/repo has no part \"dev\"; there are test, train, to be named as hf:test/repo:PART");
    }

    @Test
    void ofADataSetInAnotherFormTheHubsOwnParquetFilesAreTaken() {
        fake.dataSet = true;
        fake.listing = List.of("README.md", "train.jsonl");
        fake.converted = List.of(
                "default/train/0000.parquet", "default/train/0001.parquet", "french/partial-train/0000.parquet");
        fake.converted.forEach(fake::with);

        assertThat(hub().data(REPO))
                .extracting(path -> path.getFileName().toString())
                .containsExactly("0000.parquet", "0001.parquet");
        assertThat(hub().data(HubName.parse("hf:test/repo:french/train"))).hasSize(1);

        fake.converted = null;
        assertThatThrownBy(() -> hub().data(REPO))
                .isInstanceOf(HubException.class)
                .hasMessage("hf:test/repo holds no Parquet files, and the hub has made none of it; it holds README.md,"
                        + " train.jsonl; a file is named as hf:test/repo:FILE");
    }

    @Test
    void configurationsOfADataSetAreNamed() {
        fake.dataSet = true;
        fake.with("english/train-00000-of-00001.parquet")
                .with("french/train/0000.parquet")
                .with("french/test.parquet");

        assertThat(hub().data(HubName.parse("hf:test/repo:french/train"))).hasSize(1);
        assertThat(hub().data(HubName.parse("hf:test/repo:test"))).hasSize(1);
        assertThatThrownBy(() -> hub().data(REPO))
                .hasMessage(
                        "hf:test/repo has 2 parts \"train\"; there are english/train, french/test, french/train, to be"
                                + " named as hf:test/repo:PART");
    }

    @Test
    void aDataSetAndAModelOfOneNameAreTwoThings() {
        fake.with("model.gguf", weights);
        assertThatThrownBy(() -> hub().data(REPO))
                .isInstanceOf(HubException.class)
                .hasMessageContaining("does not exist");
        assertThat(hub().model(REPO)).hasBinaryContent(weights);
    }

    @Test
    void aFileThatTwoCommitsShareIsSentOnce() {
        fake.with("model.gguf", weights);
        hub().model(REPO);
        fake.commit = "f".repeat(40);

        Path newer = hub().model(REPO);

        assertThat(newer.toString()).contains("f".repeat(40));
        assertThat(newer).hasBinaryContent(weights);
        assertThat(fake.count("GET", "model.gguf")).isEqualTo(1);
        assertThat(cache.resolve("models--test--repo/refs/main")).hasContent("f".repeat(40));
    }

    @Test
    void anEmptyFileIsAFile() {
        fake.with("empty.txt", new byte[0]);
        assertThat(hub().file(REPO, "empty.txt")).isEmptyFile();
    }

    @Test
    void largeFilesComeFromAnotherHostWhichDoesNotSeeTheToken() {
        fake.with("model.gguf", weights).largeFilesElsewhere = true;

        assertThat(hub().model(REPO)).hasBinaryContent(weights);

        assertThat(fake.requests)
                .filteredOn(request -> request.host().equals("storage"))
                .hasSize(1)
                .allMatch(request -> request.authorization() == null);
        assertThat(fake.requests)
                .filteredOn(request -> request.host().equals("hub"))
                .hasSize(3)
                .allMatch(request -> ("Bearer " + TOKEN).equals(request.authorization()));
    }

    @Test
    void aRepositoryThatMovedIsFollowed() {
        fake.with("model.gguf", weights);
        String moved = "/test/repo/resolve/" + COMMIT + "/model.gguf";
        fake.nextMetadata(status(307, "Location", moved));
        fake.nextFile(status(307, "Location", moved));

        assertThat(hub().model(REPO)).hasBinaryContent(weights);

        assertThat(fake.requests).allMatch(request -> request.authorization() != null);
    }

    @Test
    void theTokenDoesNotComeBackFromAnotherHost() {
        fake.with("model.gguf", weights);
        // The hub sends to the storage, and that back to the hub.
        fake.nextFile(status(302, "Location", fake.storageAddress() + "/test/repo/resolve/main/model.gguf"));
        assertThat(hub().model(REPO)).hasBinaryContent(weights);
        assertThat(fake.requests.get(fake.requests.size() - 1).authorization()).isNull();
    }

    // ---- connections

    @Test
    void whatBreaksOffGoesOnWhereItBroke() {
        fake.with("model.gguf", weights);
        fake.nextFile(cutOnceSomeHasComeOf(100_000));
        fake.nextFile(fake.cutAfter(0));
        fake.nextFile(cutOnceSomeHasComeOf(200_000));

        assertThat(hub().model(REPO)).hasBinaryContent(weights);

        List<String> ranges = fake.requests.stream()
                .filter(request ->
                        request.method().equals("GET") && request.path().endsWith(".gguf"))
                .map(request -> Objects.toString(request.range(), ""))
                .toList();
        assertThat(ranges).hasSize(4);
        assertThat(ranges.get(0)).isEmpty();
        // Of what was sent last before a break, some may not have come.
        assertThat(ranges.get(1)).isEqualTo(ranges.get(2));
        assertThat(start(ranges.get(1))).isBetween(1L, 100_000L);
        assertThat(start(ranges.get(3))).isBetween(start(ranges.get(1)) + 1, 300_000L);
    }

    @Test
    void aDownloadThatEndedGoesOnTheNextTime() {
        fake.with("model.gguf", weights);
        fake.nextFile(cutOnceSomeHasComeOf(100_000));
        // More than the tries: the client may ask again by itself when a connection ends before an answer.
        for (int i = 0; i < 50; i++) {
            fake.nextFile(fake.cutAfter(0));
        }
        refused(" of 500000 bytes; what has come is kept, run the command again to go on", () -> hub().model(REPO));
        fake.behave();

        assertThat(hub().model(REPO)).hasBinaryContent(weights);
        assertThat(start(fake.requests.get(fake.requests.size() - 1).range())).isBetween(1L, 100_000L);
    }

    /** The hub sends so many bytes, and ends the connection when the client has kept some: what it has not read by then is lost. */
    private FakeHub.Trick cutOnceSomeHasComeOf(int bytes) {
        return exchange -> {
            long before = kept();
            fake.cutAfter(bytes).answer(exchange);
            for (long end = System.nanoTime() + PATIENCE.toNanos(); kept() <= before && System.nanoTime() < end; ) {
                sleep(5);
            }
        };
    }

    /** Bytes of what is not complete yet. */
    private long kept() throws IOException {
        return filesBelow(cache).stream()
                .filter(path -> path.toString().endsWith(".lorica-incomplete"))
                .mapToLong(path -> path.toFile().length())
                .sum();
    }

    @Test
    void silenceIsABreak() {
        fake.with("model.gguf", weights);
        CountDownLatch over = new CountDownLatch(1);
        fake.nextFile(exchange -> {
            exchange.sendResponseHeaders(200, weights.length);
            exchange.getResponseBody().write(weights, 0, 1000);
            exchange.getResponseBody().flush();
            try {
                over.await(); // says nothing more while anybody listens
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        });
        try {
            assertThat(hub(fake, Duration.ofSeconds(1)).model(REPO)).hasBinaryContent(weights);
        } finally {
            over.countDown();
        }
    }

    @Test
    void aServerWithoutRangesSendsItAllAgain() {
        fake.with("model.gguf", weights);
        fake.nextFile(fake.cutAfter(100_000));
        fake.nextFile(exchange -> {
            exchange.sendResponseHeaders(200, weights.length);
            exchange.getResponseBody().write(weights);
        });
        assertThat(hub().model(REPO)).hasBinaryContent(weights);
    }

    @ParameterizedTest
    @ValueSource(strings = {"bytes 0-499999/500000", "bytes 100000-499999/600000", "bytes 100000-/", "nonsense"})
    void anotherRangeThanAskedForIsNotTaken(String range) {
        fake.with("model.gguf", weights);
        fake.nextFile(fake.cutAfter(100_000));
        fake.nextFile(exchange -> {
            exchange.getResponseHeaders().add("Content-Range", range);
            exchange.sendResponseHeaders(206, weights.length);
            exchange.getResponseBody().write(weights);
        });
        assertThat(hub().model(REPO)).hasBinaryContent(weights);
        assertThat(fake.requests.get(fake.requests.size() - 1).range()).isNull();
    }

    @Test
    void aRangeThatIsRefusedMeansFromTheBeginning() {
        fake.with("model.gguf", weights);
        fake.nextFile(fake.cutAfter(100_000));
        fake.nextFile(status(416));
        assertThat(hub().model(REPO)).hasBinaryContent(weights);
    }

    // ---- lengths and checksums

    @Test
    void whatIsLongerThanAnnouncedIsNotKept() {
        fake.with("model.gguf", weights).size = 499_999L;
        refused("is longer than the 499999 bytes that were announced", () -> hub().model(REPO));
        assertNothingIsKept();
    }

    @Test
    void whatIsShorterThanAnnouncedIsNotTakenForTheWhole() {
        fake.with("model.gguf", weights).size = 500_001L;
        refused("the connection breaks again and again after", () -> hub().model(REPO));
        assertThat(cache.resolve("models--test--repo/snapshots")).doesNotExist();
    }

    @Test
    void aSizeThatTheDiskHasNoRoomForIsRefusedBeforeAnythingIsSent() {
        fake.with("model.gguf", weights).size = Long.MAX_VALUE;
        refused("MiB more, and there are", () -> hub().model(REPO));
        assertThat(fake.count("GET", "model.gguf")).isZero();
    }

    @ParameterizedTest
    @ValueSource(strings = {"model.gguf", "config.json"})
    void anotherChecksumThanAnnouncedIsRefused(String file) {
        fake.with(file, weights).etag = FakeHub.isLarge(file) ? "ab".repeat(32) : "ab".repeat(20);
        refused("came with another checksum than announced, abab", () -> hub().file(REPO, file));
        assertNothingIsKept();
    }

    @Test
    void aDamagedPartIsThrownAwayAndTheFileSentAgain() throws IOException {
        fake.with("model.gguf", weights);
        Path blobs = Files.createDirectories(cache.resolve("models--test--repo/blobs"));
        Files.write(blobs.resolve(fake.etag("model.gguf") + ".lorica-incomplete"), new byte[1000]);

        assertThat(hub().model(REPO)).hasBinaryContent(weights);

        assertThat(fake.count("GET", "model.gguf")).isEqualTo(2);
    }

    @Test
    void aBlobThatSomeoneCutIsSentAgain() throws IOException {
        fake.with("model.gguf", weights);
        Path blobs = Files.createDirectories(cache.resolve("models--test--repo/blobs"));
        Files.write(blobs.resolve(fake.etag("model.gguf")), Arrays.copyOf(weights, 1000));

        assertThat(hub().model(REPO)).hasBinaryContent(weights);
    }

    // ---- refusals

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "401 | RepoNotFound | hf:test/repo does not exist, or it is private: the account of the token in use may not read it",
                "401 | | hf:test/repo does not exist, or it is private: the account of the token in use may not read it",
                "403 | GatedRepo | hf:test/repo is gated: ask for access at ADDRESS/test/repo; then the account",
                "401 | GatedRepo | hf:test/repo is gated: ask for access at ADDRESS/test/repo; then the account",
                "403 | | access to hf:test/repo is refused: the account of the token",
                "404 | RepoNotFound | hf:test/repo does not exist",
                "404 | RevisionNotFound | hf:test/repo does not exist: there is no revision \"main\"",
                "404 | | hf:test/repo does not exist",
                "418 | | localhost answers 418 to the request for hf:test/repo",
            })
    void refusalsSayWhatToDo(int status, String code, String message) {
        fake.with("model.gguf", weights);
        fake.nextListing(code == null ? status(status) : status(status, "X-Error-Code", code));
        refused(message.replace("ADDRESS", fake.address().toString()), () -> hub().model(REPO));
        assertThat(fake.requests).hasSize(1);
    }

    @Test
    void withoutATokenOneIsAskedFor() {
        fake.with("model.gguf", weights);
        fake.nextListing(status(401));
        Hub hub = new Hub(new HubConfig(fake.address(), cache, null, false, PATIENCE), HubListener.SILENT, pauses::add);
        refused("set HF_TOKEN to the token of an account that may read it", () -> hub.model(REPO));
        assertThat(fake.requests.get(0).authorization()).isNull();
    }

    @Test
    void aMissingFileIsNamed() {
        fake.with("model.gguf", weights);
        refused("hf:test/repo:no.gguf does not exist", () -> hub().model(HubName.parse("hf:test/repo:no.gguf")));
        refused("hf:test/other does not exist", () -> hub().model(HubName.parse("hf:test/other:x.gguf")));
    }

    @Test
    void pausesThatAreAskedForAreMade() {
        fake.with("model.gguf", weights);
        fake.nextListing(status(429, "Retry-After", "7"));
        String soon = ZonedDateTime.now(ZoneOffset.UTC).plusSeconds(280).format(DateTimeFormatter.RFC_1123_DATE_TIME);
        fake.nextMetadata(status(429, "Retry-After", soon));
        fake.nextFile(status(429));
        fake.nextFile(status(503));

        assertThat(hub().model(REPO)).hasBinaryContent(weights);

        assertThat(pauses).hasSize(4);
        assertThat(pauses.get(0)).isEqualTo(Duration.ofSeconds(7));
        assertThat(pauses.get(1)).isBetween(Duration.ofSeconds(100), Duration.ofSeconds(280));
        assertThat(pauses.subList(2, 4)).containsExactly(Duration.ofSeconds(1), Duration.ofSeconds(2));
        assertThat(notes)
                .contains("localhost asks for a pause; goes on in 7 s", "localhost answers 503; goes on in 2 s");
    }

    @Test
    void aPauseOfHoursIsNotMade() {
        fake.with("model.gguf", weights);
        fake.nextListing(status(429, "Retry-After", "36000"));
        refused("localhost asks for a pause of 36000 s; try again then", () -> hub().model(REPO));
        assertThat(pauses).isEmpty();
    }

    @Test
    void troubleThatDoesNotPassIsReported() {
        fake.with("model.gguf", weights);
        for (int i = 0; i < 6; i++) {
            fake.nextListing(status(500));
        }
        refused("localhost answers 500 to the request for hf:test/repo", () -> hub().model(REPO));
        assertThat(pauses).hasSize(5);
    }

    @Test
    void redirectsThatLeadNowhereAreNotFollowed() {
        fake.with("model.gguf", weights);
        for (int i = 0; i < 20; i++) {
            fake.nextListing(status(302, "Location", "/api/models/test/repo/revision/main"));
        }
        refused("sends from one address to the next without end", () -> hub().model(REPO));
        for (String location :
                List.of("file:///etc/passwd", "ftp://localhost/x", "http://", "http://[", "mailto:a@b")) {
            FakeHub other = new FakeHub().with("model.gguf", weights);
            other.nextListing(status(302, "Location", location));
            refused("is no address", () -> hub(other).model(REPO));
            other.close();
        }
    }

    @Test
    void somethingThatIsNoHubIsSaidToBeNone() {
        fake.with("model.gguf", weights);
        for (String body : List.of(
                "<html>",
                "{}",
                "[]",
                "{\"sha\":\"../../x\",\"siblings\":[]}",
                "{\"sha\":\"" + COMMIT + "\"}",
                "null")) {
            fake.nextListing(exchange -> {
                exchange.sendResponseHeaders(200, body.length());
                exchange.getResponseBody().write(body.getBytes(StandardCharsets.UTF_8));
            });
            refused("does not answer like a hub", () -> hub().model(REPO));
        }
        fake.nextMetadata(status(200));
        refused("it tells no commit", () -> hub().model(REPO));
        fake.nextMetadata(status(200, "X-Repo-Commit", COMMIT));
        refused("it tells no size", () -> hub().model(REPO));
        fake.nextMetadata(status(200, "X-Repo-Commit", COMMIT, "X-Linked-Size", "10"));
        refused("it tells no checksum", () -> hub().model(REPO));
        fake.nextMetadata(status(200, "X-Repo-Commit", "f".repeat(40), "X-Linked-Size", "10", "ETag", "\"x\""));
        refused("answers with commit ffff", () -> hub().model(REPO));
    }

    // ---- names that lead out of the cache

    @ParameterizedTest
    @ValueSource(
            strings = {
                "hf:owner",
                "hf:",
                "hf:/repo",
                "hf:owner/",
                "hf:../repo",
                "hf:owner/..",
                "hf:owner/repo/more",
                "hf:.owner/repo",
                "hf:owner/repo:",
                "hf:owner/repo@",
                "hf:owner/repo:../../x.gguf",
                "hf:owner/repo:a/../../x.gguf",
                "hf:owner/repo@../main:x.gguf",
                "hf:owner/repo@-x",
                "hf:owner/a..b",
                "hf:own er/repo",
                "hf:owner/repo@a//b",
                "hf:owner/repo@a/./b:x"
            })
    void badNamesAreRefused(String name) {
        assertThatThrownBy(() -> HubName.parse(name))
                .isInstanceOf(LoricaException.class)
                .message()
                .doesNotContain("\n");
    }

    @ParameterizedTest
    @ValueSource(strings = {"/etc/passwd", "a//b", "a/./b", "..", "a\\b", "c:x", "a\u0000b", "a\nb", ""})
    void pathsThatAreNoPlainRelativeOnesAreUnsafe(String path) {
        assertThat(HubName.isSafe(path)).isFalse();
    }

    @Test
    void namesInAListingThatLeadOutOfTheCacheAreNotThere() throws IOException {
        fake.with("model.gguf", weights).listing =
                List.of("../../../evil.gguf", "/evil.gguf", "a/../../evil.gguf", "..\\evil.gguf");
        refused("hf:test/repo holds no GGUF file", () -> hub().model(REPO));
        assertThat(fake.requests).hasSize(1);
        assertThat(filesBelow(cache)).isEmpty();
    }

    @ParameterizedTest
    @ValueSource(strings = {"../../../evil", "a/b", "", "x y", "/evil"})
    void aChecksumThatIsNoFileNameIsRefused(String etag) {
        fake.with("model.gguf", weights).etag = etag;
        refused("does not answer like a hub: it tells no checksum", () -> hub().model(REPO));
        assertNothingIsKept();
    }

    @Test
    void aCommitThatIsNoneIsRefused() {
        fake.with("model.gguf", weights).commit = "../../../../evil";
        refused("does not answer like a hub", () -> hub().model(REPO));
        refused("does not answer like a hub", () -> hub().file(REPO, "model.gguf"));
        assertNothingIsKept();
    }

    // ---- without the hub

    @Test
    void offlineNobodyIsAsked() {
        fake.with("model.gguf", weights);
        Hub offline = new Hub(new HubConfig(fake.address(), cache, TOKEN, true, PATIENCE), HubListener.SILENT);
        assertThatThrownBy(() -> offline.model(REPO))
                .isInstanceOf(FileAccessException.class)
                .hasMessage(
                        "hf:test/repo is not in the cache, " + cache + ", and HF_HUB_OFFLINE forbids to download it");
        assertThatThrownBy(() -> offline.model(HubName.parse("hf:test/repo:model.gguf")))
                .isInstanceOf(FileAccessException.class)
                .hasMessageStartingWith("hf:test/repo:model.gguf is not in the cache");
        assertThat(fake.requests).isEmpty();

        Path there = hub().model(REPO);
        fake.requests.clear();
        assertThat(offline.model(REPO)).isEqualTo(there);
        assertThat(offline.model(HubName.parse("hf:test/repo:model.gguf"))).isEqualTo(there);
        assertThat(offline.model(HubName.parse("hf:test/repo@" + COMMIT))).isEqualTo(there);
        assertThat(fake.requests).isEmpty();
    }

    @Test
    void whenTheHubCannotBeReachedTheCacheIsTaken() {
        fake.with("model.gguf", weights);
        Path there = hub().model(REPO);
        fake.stop();

        assertThat(hub().model(REPO)).isEqualTo(there);
        assertThat(notes)
                .contains("localhost cannot be reached (connection refused); takes hf:test/repo from the cache");
        assertThat(hub().model(HubName.parse("hf:test/repo:model.gguf"))).isEqualTo(there);
        refused(
                "localhost cannot be reached for hf:test/other, which is not in the cache: connection refused",
                () -> hub().model(HubName.parse("hf:test/other")));
    }

    @Test
    void aCacheThatCannotBeWrittenIsNamed() throws IOException {
        fake.with("model.gguf", weights);
        Files.writeString(cache.resolve("models--test--repo"), "a file");
        assertThatThrownBy(() -> hub().model(REPO))
                .isInstanceOf(FileAccessException.class)
                .hasMessageContaining("the cache " + cache + " cannot be written")
                .hasMessageContaining("HF_HUB_CACHE");
    }

    // ---- which file

    @Test
    void withoutAFileTheOnlyModelOrTheUsualTypeIsTaken() {
        assertThat(chosen("hf:test/repo", "a.gguf", "README.md", "mmproj-a.gguf"))
                .isEqualTo("a.gguf");
        assertThat(chosen("hf:test/repo", "a-Q8_0.gguf", "a-q4_k_m.gguf", "a-Q4_K_S.gguf"))
                .isEqualTo("a-q4_k_m.gguf");
        assertThat(chosen("hf:test/repo:Q8_0", "a-Q8_0.gguf", "a.Q4_K_M.gguf")).isEqualTo("a-Q8_0.gguf");
        assertThat(chosen("hf:test/repo:q4_k_m", "b/a-Q8_0.gguf", "b/a.Q4_K_M.gguf"))
                .isEqualTo("b/a.Q4_K_M.gguf");
        assertThat(chosen("hf:test/repo:b/a-Q8_0.gguf", "b/a-Q8_0.gguf", "b/a.Q4_K_M.gguf"))
                .isEqualTo("b/a-Q8_0.gguf");
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "hf:test/repo | a-Q8_0.gguf;a-Q6_K.gguf | holds 2 GGUF files; name one of them, as in hf:test/repo:a-Q6_K.gguf: a-Q6_K.gguf, a-Q8_0.gguf",
                "hf:test/repo | a-Q4_K_M.gguf;b-Q4_K_M.gguf | holds 2 GGUF files of type Q4_K_M; name one of them, as in hf:test/repo:a-Q4_K_M.gguf",
                "hf:test/repo:Q5_0 | a-Q8_0.gguf;a-Q6_K.gguf | holds no file \"Q5_0\" and no GGUF file of such a type; it holds a-Q6_K.gguf, a-Q8_0.gguf",
                "hf:test/repo:Q4_K | a-Q4_K_M.gguf | holds no file \"Q4_K\"",
                "hf:test/repo | README.md | hf:test/repo holds no GGUF file; it holds README.md",
                "hf:test/repo | config.json;model.safetensors | holds no GGUF file, but a model in safetensors: lorica convert hf:test/repo",
                "hf:test/repo | adapter_config.json | holds no GGUF file, but an adapter, which a model is given beside its own name: hf:test/repo",
                "hf:test/repo:a-00002-of-00002.gguf | a-00001-of-00002.gguf;a-00002-of-00002.gguf | is one of several files of a model; name the first, a-00001-of-00002.gguf"
            })
    void whatIsNotDecidedIsListed(String name, String files, String message) {
        assertThatThrownBy(() -> chosen(name, files.split(";")))
                .isInstanceOf(HubException.class)
                .hasMessageContaining(message);
    }

    @ParameterizedTest
    @ValueSource(strings = {"hf:test/repo", "hf:test/repo:Q4_K_M", "hf:test/repo:q/a-Q4_K_M-00001-of-00003.gguf"})
    void allFilesOfAModelInSeveralAreSent(String name) {
        fake.with("q/a-Q4_K_M-00001-of-00003.gguf")
                .with("q/a-Q4_K_M-00002-of-00003.gguf")
                .with("q/a-Q4_K_M-00003-of-00003.gguf")
                .with("a-Q8_0.gguf");
        Path first = hub().model(HubName.parse(name));
        assertThat(first).hasFileName("a-Q4_K_M-00001-of-00003.gguf");
        assertThat(first.getParent().toFile().list())
                .containsExactlyInAnyOrder(
                        "a-Q4_K_M-00001-of-00003.gguf", "a-Q4_K_M-00002-of-00003.gguf", "a-Q4_K_M-00003-of-00003.gguf");
        fake.files.remove("q/a-Q4_K_M-00002-of-00003.gguf");
        fake.commit = "e".repeat(40);
        refused(
                "hf:test/repo holds q/a-Q4_K_M-00001-of-00003.gguf, but not q/a-Q4_K_M-00002-of-00003.gguf, another file of the same model",
                () -> hub().model(HubName.parse("hf:test/repo")));
    }

    @Test
    void adaptersAreFoldersOrFiles() {
        fake.with("adapter_config.json")
                .with("adapter_model.safetensors")
                .with("README.md")
                .with("other/adapter_config.json")
                .with("other/adapter_model.safetensors")
                .with("lorica/adapter.gguf")
                .with("lorica/lorica_adapter.json")
                .with("old/adapter_config.json")
                .with("old/adapter_model.bin")
                .with("x/b.gguf");
        Path snapshot = cache.resolve("models--test--repo/snapshots/" + COMMIT);

        assertThat(hub().adapter(REPO)).isEqualTo(snapshot);
        assertThat(snapshot.toFile().list())
                .containsExactlyInAnyOrder("adapter_config.json", "adapter_model.safetensors");
        assertThat(hub().adapter(HubName.parse("hf:test/repo:other"))).isEqualTo(snapshot.resolve("other"));
        assertThat(hub().adapter(HubName.parse("hf:test/repo:lorica"))).isEqualTo(snapshot.resolve("lorica"));
        assertThat(snapshot.resolve("lorica").toFile().list())
                .containsExactlyInAnyOrder("adapter.gguf", "lorica_adapter.json");
        assertThat(hub().adapter(HubName.parse("hf:test/repo:x/b.gguf"))).isEqualTo(snapshot.resolve("x/b.gguf"));
        refused("hf:test/repo:old holds its adapter as adapter_model.bin", () -> hub().adapter(
                        HubName.parse("hf:test/repo:old")));
        fake.files.keySet().removeIf(file -> !file.equals("README.md"));
        fake.commit = "e".repeat(40);
        refused(
                "hf:test/repo holds no adapter, neither adapter_config.json with adapter_model.safetensors nor a GGUF file; it holds README.md",
                () -> hub().adapter(REPO));
    }

    @Test
    void ofAModelInSafetensorsOnlyWhatAConversionReadsIsSent() {
        fake.with("config.json")
                .with("model-00001-of-00002.safetensors")
                .with("model-00002-of-00002.safetensors")
                .with("model.safetensors.index.json")
                .with("tokenizer.json")
                .with("consolidated.safetensors")
                .with("pytorch_model.bin")
                .with("evil.py");
        Path folder = hub().folder(REPO);
        assertThat(folder.toFile().list())
                .containsExactlyInAnyOrder(
                        "config.json",
                        "model-00001-of-00002.safetensors",
                        "model-00002-of-00002.safetensors",
                        "model.safetensors.index.json",
                        "tokenizer.json");
        refused("hf:test/repo holds no model in safetensors", () -> {
            fake.files.remove("config.json");
            hub().folder(REPO);
        });
    }

    // ---- at once

    @Test
    void twoProcessesThatWantTheSameFileDownloadItOnce() throws Exception {
        fake.with("austen.gguf", Files.readAllBytes(TestModels.austen())).slowness = 10;
        List<Process> processes = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            ProcessBuilder builder = new ProcessBuilder(
                    Path.of(System.getProperty("java.home"), "bin/java").toString(),
                    "-cp",
                    System.getProperty("java.class.path"),
                    LoadsFromTheHub.class.getName(),
                    "hf:test/repo");
            builder.environment().keySet().removeIf(name -> name.startsWith("HF_"));
            builder.environment()
                    .putAll(Map.of(
                            "HF_ENDPOINT", fake.address().toString(), "HF_HOME", cache.toString(), "HF_TOKEN", TOKEN));
            processes.add(builder.redirectErrorStream(true).start());
        }
        for (Process process : processes) {
            String printed = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
            assertThat(process.waitFor(5, TimeUnit.MINUTES)).isTrue();
            assertThat(printed)
                    .contains("loaded " + cache.resolve("hub/models--test--repo/snapshots/" + COMMIT + "/austen.gguf"));
        }
        assertThat(fake.count("GET", "austen.gguf")).isEqualTo(1);
        assertThat(fake.requests).allMatch(request -> ("Bearer " + TOKEN).equals(request.authorization()));
    }

    /** A program that loads a model by its name on the hub, as the environment says. */
    static final class LoadsFromTheHub {
        private LoadsFromTheHub() {}

        public static void main(String[] args) {
            try (Model model = Model.load(Path.of(args[0]))) {
                System.out.println("loaded " + model.file());
            }
        }
    }

    @Test
    void threadsThatWantTheSameFileDownloadItOnce() throws Exception {
        fake.with("model.gguf", weights).slowness = 5;
        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < 6; i++) {
            threads.add(new Thread(() -> hub().model(REPO)));
            threads.get(i).start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        assertThat(fake.count("GET", "model.gguf")).isEqualTo(1);
        assertThat(hub().model(REPO)).hasBinaryContent(weights);
    }

    // ---- the environment

    @Test
    void theEnvironmentIsReadAsHuggingFaceReadsIt() throws IOException {
        Path home = cache;
        assertThat(HubConfig.from(Map.of(), home))
                .isEqualTo(new HubConfig(
                        URI.create("https://huggingface.co"),
                        home.resolve(".cache/huggingface/hub"),
                        null,
                        false,
                        Duration.ofSeconds(30)));
        assertThat(HubConfig.from(Map.of("XDG_CACHE_HOME", "/x"), home).cache())
                .isEqualTo(Path.of("/x/huggingface/hub"));
        assertThat(HubConfig.from(Map.of("HF_HOME", "~/h"), home).cache()).isEqualTo(home.resolve("h/hub"));
        assertThat(HubConfig.from(Map.of("HF_HOME", "/h", "HF_HUB_CACHE", "/c"), home)
                        .cache())
                .isEqualTo(Path.of("/c"));
        HubConfig config = HubConfig.from(
                Map.of(
                        "HF_TOKEN",
                        " abc\n",
                        "HF_HUB_OFFLINE",
                        "true",
                        "HF_ENDPOINT",
                        "http://localhost:1/",
                        "HF_HUB_DOWNLOAD_TIMEOUT",
                        "3"),
                home);
        assertThat(config.token()).isEqualTo("abc");
        assertThat(config.offline()).isTrue();
        assertThat(config.endpoint()).isEqualTo(URI.create("http://localhost:1"));
        assertThat(config.timeout()).isEqualTo(Duration.ofSeconds(3));
        assertThat(config.toString()).doesNotContain("abc");

        Files.createDirectories(home.resolve(".cache/huggingface"));
        Files.writeString(home.resolve(".cache/huggingface/token"), "from-file\n");
        assertThat(HubConfig.from(Map.of(), home).token()).isEqualTo("from-file");
        assertThat(HubConfig.from(Map.of("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"), home)
                        .token())
                .isNull();
        for (Map<String, String> bad : List.of(
                Map.of("HF_ENDPOINT", "huggingface.co"),
                Map.of("HF_ENDPOINT", "ftp://x"),
                Map.of("HF_ENDPOINT", "http://a b"),
                Map.of("HF_TOKEN", "a\nb"),
                Map.of("HF_HUB_DOWNLOAD_TIMEOUT", "soon"))) {
            assertThatThrownBy(() -> HubConfig.from(bad, home))
                    .isInstanceOf(LoricaException.class)
                    .message()
                    .doesNotContain("\n");
        }
    }

    // ----

    private Hub hub() {
        return hub(fake);
    }

    private Hub hub(FakeHub server) {
        return hub(server, PATIENCE);
    }

    private Hub hub(FakeHub server, Duration timeout) {
        HubListener listener = new HubListener() {
            @Override
            public void note(String line) {
                synchronized (notes) {
                    notes.add(line);
                }
            }
        };
        return new Hub(new HubConfig(server.address(), cache, TOKEN, false, timeout), listener, time -> {
            synchronized (pauses) {
                pauses.add(time);
            }
        });
    }

    private static long start(String range) {
        return Long.parseLong(range.replaceAll("bytes=(\\d+)-", "$1"));
    }

    private static String chosen(String name, String... files) {
        return Choice.gguf(HubName.parse(name), List.of(files));
    }

    private static void refused(String part, ThrowingCallable call) {
        assertThatThrownBy(call)
                .isInstanceOf(LoricaException.class)
                .hasMessageContaining(part)
                .message()
                .doesNotContain("\n")
                .doesNotContain(TOKEN);
    }

    private void assertNothingIsKept() {
        try {
            assertThat(filesBelow(cache).stream()
                            .filter(path -> !path.toString().endsWith(".lock"))
                            .filter(path -> path.toFile().length() > 0))
                    .isEmpty();
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    private static List<Path> filesBelow(Path folder) throws IOException {
        try (Stream<Path> paths = Files.walk(folder)) {
            return paths.filter(Files::isRegularFile).toList();
        }
    }

    private static void sleep(long milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private static byte[] random(int n) {
        byte[] bytes = new byte[n];
        new Random(1).nextBytes(bytes);
        return bytes;
    }
}
