package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import dev.lorica.cli.ServeCommandTest.Running;
import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.logging.Level;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.openqa.selenium.By;
import org.openqa.selenium.Dimension;
import org.openqa.selenium.Keys;
import org.openqa.selenium.StaleElementReferenceException;
import org.openqa.selenium.WebElement;
import org.openqa.selenium.chrome.ChromeDriver;
import org.openqa.selenium.chrome.ChromeDriverService;
import org.openqa.selenium.chrome.ChromeOptions;
import org.openqa.selenium.logging.LogEntry;
import org.openqa.selenium.logging.LogType;
import org.openqa.selenium.logging.LoggingPreferences;

/** The studio in a browser, as a person uses it. With {@code -Dlorica.screenshots=DIR} what it looks like is kept there. */
@Timeout(240)
class StudioPageTest {
    private static final String QUESTION = "Who is Mr. Collins?";
    /** More than there is time for: it is stopped. */
    private static final int STEPS = 100_000;

    private static final int EXAMPLES = 60;

    private static ChromeDriver browser;

    @TempDir
    private Path folder;

    @BeforeAll
    static void begin() {
        Path program = program("chromium", "chromium-browser", "google-chrome");
        Path driver = program("chromedriver");
        assumeTrue(
                program != null && driver != null,
                "Chromium or its chromedriver is not installed, so the page is not looked at");
        ChromeOptions options = new ChromeOptions();
        options.setBinary(program.toFile());
        options.addArguments(
                "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage");
        options.addArguments("--disable-background-networking", "--disable-component-update", "--disable-sync");
        LoggingPreferences logs = new LoggingPreferences();
        logs.enable(LogType.BROWSER, Level.ALL);
        options.setCapability("goog:loggingPrefs", logs);
        browser = new ChromeDriver(
                new ChromeDriverService.Builder()
                        .usingDriverExecutable(driver.toFile())
                        .build(),
                options);
    }

    @AfterAll
    static void end() {
        if (browser != null) {
            browser.quit();
        }
    }

    private static Path program(String... names) {
        return Stream.of(names)
                .flatMap(name -> Stream.of(System.getenv("PATH").split(File.pathSeparator))
                        .map(directory -> Path.of(directory, name)))
                .filter(Files::isExecutable)
                .findFirst()
                .orElse(null);
    }

    private Running serve() throws IOException {
        Path data = Files.createDirectories(folder.resolve("data"));
        Path questions = data.resolve("questions.json");
        if (!Files.exists(questions)) {
            ObjectMapper json = new ObjectMapper();
            JsonNode all = json.readTree(Path.of(Program.repository("models/data/pride_and_prejudice_train.json"))
                    .toFile());
            ArrayNode some = json.createArrayNode();
            for (int i = 0; i < EXAMPLES; i++) {
                some.add(all.get(i));
            }
            json.writeValue(questions.toFile(), some);
        }
        return new Running(
                "serve",
                "--model",
                Program.model(),
                "--data-folder",
                data.toString(),
                "--output-folder",
                folder.resolve("out").toString(),
                "--port",
                "0",
                "--ctx-size",
                "256",
                "--json");
    }

    @Test
    void aRunOutlivesItsPageAndItsServerAndItsAdapterAnswersOtherwise() throws Exception {
        try (Running server = serve()) {
            open(server, "train");
            fill("run-name", "austen");
            fill("option-data", "questions.json");
            fill("option-max-steps", String.valueOf(STEPS));
            fill("option-batch-size", "2");
            fill("option-learning-rate", "3e-3");
            fill("option-logging-steps", "1");
            fill("option-eval-steps", "10");
            fill("option-ask", QUESTION);
            await("the command line is shown", () -> text("command").contains("--ask 'Who is Mr. Collins?'"));
            assertThat(text("meant")).contains("ask_at_evals: true", "learning_rate: 3e-3");

            click(By.id("look"));
            await("the plan is shown", () -> text("plan").contains("it fits"));
            assertThat(text("plan"))
                    .contains("It takes 100,000 steps of 2 examples", "that it does not learn", "nothing is cut");
            assertThat(all(".token.learned")).hasSizeGreaterThan(20);
            screens("train");

            click(By.id("start"));
            awaitRun("austen", "running");
            await("the curve begins", () -> values() >= 5);
            long seen = values();
            screens("running");

            browser.navigate().refresh();
            await("the same curve is there after a reload", () -> values() >= seen);
            await("and goes on", () -> values() > seen + 5);

            click(By.cssSelector("[data-focus='stop austen']"));
            awaitRun("austen", "stopped");
        }
        try (Running another = serve()) {
            open(another, "runs");
            awaitRun("austen", "stopped");
            await("another server has the curve too", () -> values() > 10);
            long stoppedAt = values();

            click(By.cssSelector("[data-focus='resume austen']"));
            await("it goes on", () -> values() > stoppedAt + 20);
            click(By.cssSelector("[data-focus='stop austen']"));
            awaitRun("austen", "stopped");
            await("every step is there once", () -> text("page-runs").contains("step " + values() + ","));
            await("the question was asked before and at evaluations", () -> text("page-runs")
                    .contains("before"));
            assertThat(all("#page-runs .card tbody tr")).hasSizeGreaterThanOrEqualTo(3);
            screens("stopped");

            open(another, "adapters");
            await("the adapter says where it comes from", () -> text("page-adapters")
                    .contains("rank 16"));
            export("austen-merged.gguf", "merged");
            screens("adapters");
            assertThat(folder.resolve("out/austen-merged.gguf")).isNotEmptyFile();

            click(By.xpath("//button[text()='Chat with it']"));
            await("the adapter is chosen", () -> "austen"
                    .equals(browser.findElement(By.id("chat-model-1")).getDomProperty("value")));
            fill("chat-temperature", "0");
            fill("chat-tokens", "24");
            fill("chat-text", QUESTION);
            browser.findElement(By.id("chat-text")).sendKeys(Keys.ENTER);
            await(
                    "both have answered",
                    () -> browser.findElement(By.id("chat-ask")).isEnabled()
                            && answers().size() == 2);
            List<String> whole = answers();
            assertThat(whole.get(0)).isNotEqualTo(whole.get(1)).isNotEmpty();
            screens("chat");

            browser.executeScript("const scale = document.getElementById('chat-scale-1'); scale.value = 0;"
                    + " scale.dispatchEvent(new Event('input'));");
            click(By.xpath("//button[text()='Clear']"));
            fill("chat-text", QUESTION);
            browser.findElement(By.id("chat-text")).sendKeys(Keys.ENTER);
            await(
                    "both have answered again",
                    () -> browser.findElement(By.id("chat-ask")).isEnabled()
                            && answers().size() == 2);
            assertThat(answers())
                    .as("with an adapter of scale 0 it is the base")
                    .containsOnly(whole.get(0));
        }
        List<String> problems = new ArrayList<>();
        for (LogEntry entry : browser.manage().logs().get(LogType.BROWSER)) {
            // that the server went away was meant
            if (entry.getLevel().intValue() >= Level.WARNING.intValue()
                    && !entry.getMessage().contains("net::ERR")) {
                problems.add(entry.toString());
            }
        }
        assertThat(problems).isEmpty();
    }

    private void export(String name, String form) {
        click(By.cssSelector("[data-adapter='austen'] summary"));
        browser.executeScript(
                "const form = document.querySelector('[data-adapter=\"austen\"] select');"
                        + " form.value = arguments[0]; form.dispatchEvent(new Event('change'));",
                form);
        assertThat(browser.findElement(By.id("type-0")).isDisplayed()).isEqualTo(form.equals("quantized"));
        WebElement field = browser.findElement(By.id("name-0"));
        field.clear();
        field.sendKeys(name);
        click(By.xpath("//button[text()='Write']"));
        await("it is written", () -> text("page-adapters").contains("Written: "));
    }

    private static void open(Running server, String part) throws Exception {
        String address = server.uri() + "/#" + part;
        browser.get("about:blank");
        browser.get(address);
        await("the page is there", () -> "true"
                .equals(browser.findElement(By.tagName("body")).getDomAttribute("data-ready")));
    }

    private static List<WebElement> all(String selector) {
        return browser.findElements(By.cssSelector(selector));
    }

    private static String text(String id) {
        return browser.findElement(By.id(id)).getText();
    }

    private static void fill(String id, String text) {
        WebElement field = browser.findElement(By.id(id));
        field.clear();
        field.sendKeys(text);
    }

    private static void click(By what) {
        WebElement element = browser.findElement(what);
        browser.executeScript("arguments[0].scrollIntoView({block: 'center'})", element);
        element.click();
    }

    private static void awaitRun(String name, String state) {
        await("the run is " + state, () -> !all("[data-run='" + name + "'][data-state='" + state + "']")
                .isEmpty());
    }

    /** How many values the raw curve of the loss has, as a screen reader is told. */
    private static long values() {
        List<WebElement> plots = all(".plot[role=img]");
        String words = plots.isEmpty() ? null : plots.get(0).getDomAttribute("aria-label");
        return words == null ? 0 : Long.parseLong(words.replaceFirst("(?s).*?raw: (\\d+) values.*", "$1"));
    }

    /** The answers in the columns of the chat, without who says it. */
    private static List<String> answers() {
        return all(".turn:not(.mine) > span:last-child").stream()
                .map(WebElement::getText)
                .toList();
    }

    private interface Condition {
        boolean holds();
    }

    private static void await(String what, Condition condition) {
        long end = System.nanoTime() + Duration.ofSeconds(90).toNanos();
        while (System.nanoTime() < end) {
            try {
                if (condition.holds()) {
                    return;
                }
                Thread.sleep(50);
            } catch (StaleElementReferenceException e) {
                // it was replaced meanwhile
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                break;
            }
        }
        throw new AssertionError(what + ": not so; the page says:\n"
                + browser.findElement(By.tagName("body")).getText());
    }

    /** At the widths of a phone and a desk, where nothing is wider than the window; in light and dark, if pictures are kept. */
    private static void screens(String name) throws IOException {
        String kept = System.getProperty("lorica.screenshots");
        for (Map.Entry<String, Dimension> size : Map.of(
                        "phone", new Dimension(390, 844), "desk", new Dimension(1280, 900))
                .entrySet()) {
            browser.executeCdpCommand(
                    "Emulation.setDeviceMetricsOverride",
                    Map.of(
                            "width",
                            size.getValue().width,
                            "height",
                            size.getValue().height,
                            "deviceScaleFactor",
                            1,
                            "mobile",
                            size.getKey().equals("phone")));
            for (String scheme : kept == null ? List.of("light") : List.of("light", "dark")) {
                browser.executeCdpCommand(
                        "Emulation.setEmulatedMedia",
                        Map.of("features", List.of(Map.of("name", "prefers-color-scheme", "value", scheme))));
                sleep(kept == null ? 50 : 500);
                long wider = ((Number)
                                browser.executeScript("return document.documentElement.scrollWidth - innerWidth"))
                        .longValue();
                assertThat(wider)
                        .as("%s at the width of a %s", name, size.getKey())
                        .isLessThanOrEqualTo(0);
                if (kept != null) {
                    Map<?, ?> picture =
                            browser.executeCdpCommand("Page.captureScreenshot", Map.of("captureBeyondViewport", true));
                    Files.write(
                            Files.createDirectories(Path.of(kept))
                                    .resolve(name + "-" + size.getKey() + "-" + scheme + ".png"),
                            java.util.Base64.getDecoder().decode((String) picture.get("data")));
                }
            }
        }
        browser.executeCdpCommand("Emulation.clearDeviceMetricsOverride", Map.of());
        browser.executeCdpCommand("Emulation.setEmulatedMedia", Map.of("features", List.of()));
    }

    private static void sleep(long millis) {
        try {
            Thread.sleep(millis);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }
}
