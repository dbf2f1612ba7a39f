package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import dev.lorica.cli.ServeCommandTest.Running;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Function;
import java.util.function.Supplier;
import java.util.logging.Level;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.MethodOrderer;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestMethodOrder;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.openqa.selenium.By;
import org.openqa.selenium.Dimension;
import org.openqa.selenium.ElementClickInterceptedException;
import org.openqa.selenium.Keys;
import org.openqa.selenium.StaleElementReferenceException;
import org.openqa.selenium.WebElement;
import org.openqa.selenium.WindowType;
import org.openqa.selenium.chrome.ChromeDriver;
import org.openqa.selenium.chrome.ChromeDriverService;
import org.openqa.selenium.chrome.ChromeOptions;
import org.openqa.selenium.interactions.Actions;
import org.openqa.selenium.logging.LogEntry;
import org.openqa.selenium.logging.LogType;
import org.openqa.selenium.logging.LoggingPreferences;

/**
 * The studio in a browser, as a person uses it: one server and one browser for all, with two runs that were trained before. With
 * {@code -Dlorica.screenshots=DIR} what it looks like is kept there.
 */
@Timeout(900)
@TestMethodOrder(MethodOrderer.OrderAnnotation.class)
class StudioPageTest {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final String QUESTION = "Who is Mr. Collins?";
    /** More than there is time for: it is stopped. */
    private static final int STEPS = 100_000;

    private static final int EXAMPLES = 60;
    private static final Duration PATIENCE = Duration.ofSeconds(240);
    private static final Dimension PHONE = new Dimension(390, 844);
    private static final Dimension DESK = new Dimension(1280, 900);

    @TempDir
    private static Path folder;

    private static ChromeDriver browser;
    private static Running server;
    private static String axe;

    @BeforeAll
    static void begin() throws Exception {
        Path program = program("chromium", "chromium-browser", "google-chrome");
        Path driver = program("chromedriver");
        assumeTrue(
                program != null && driver != null,
                "Chromium or its chromedriver is not installed, so the page is not looked at");
        try (InputStream script = StudioPageTest.class.getResourceAsStream("/axe.min.js")) {
            axe = new String(script.readAllBytes(), StandardCharsets.UTF_8);
        }
        JsonNode all = JSON.readTree(Path.of(Program.repository("models/data/pride_and_prejudice_train.json"))
                .toFile());
        ArrayNode some = JSON.createArrayNode();
        for (int i = 0; i < EXAMPLES; i++) {
            some.add(all.get(i));
        }
        Path questions = Files.createDirectories(folder.resolve("data")).resolve("questions.json");
        JSON.writeValue(questions.toFile(), some);
        train(questions, "first", 24);
        train(questions, "second", 8);
        server = serve();
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
                        .withTimeout(PATIENCE)
                        .build(),
                options);
        browser.manage().timeouts().scriptTimeout(PATIENCE);
    }

    @AfterAll
    static void end() throws Exception {
        if (browser != null) {
            browser.quit();
        }
        if (server != null) {
            server.close();
        }
    }

    /** Nothing that the browser complains of, but that a server went away that was meant to. */
    @AfterEach
    void theConsoleIsSilent() {
        List<String> problems = new ArrayList<>();
        for (LogEntry entry : browser.manage().logs().get(LogType.BROWSER)) {
            if (entry.getLevel().intValue() >= Level.WARNING.intValue()
                    && !entry.getMessage().contains("net::ERR")
                    && !entry.getMessage().contains("status of 400")) { // what was refused, and said on the page
                problems.add(entry.toString());
            }
        }
        assertThat(problems).isEmpty();
    }

    /** As in a shell; in this process, because a start of another takes longer than this training. */
    private static void train(Path data, String name, int steps) {
        Program.run(
                        "train",
                        "--model=" + Program.model(),
                        "--data=" + data,
                        "--output=" + folder.resolve("out").resolve(name),
                        "--max-steps=" + steps,
                        "--batch-size=2",
                        "--max-length=128",
                        "--lora-r=4",
                        "--learning-rate=1e-2",
                        "--logging-steps=1",
                        "--eval-split=0.05",
                        "--eval-steps=8")
                .succeeds();
    }

    private static Running serve() {
        return new Running(
                "serve",
                "--model",
                Program.model(),
                "--data-folder",
                folder.resolve("data").toString(),
                "--output-folder",
                folder.resolve("out").toString(),
                "--port",
                "0",
                "--ctx-size",
                "256",
                "--json");
    }

    private static List<Double> logged(String run, String field) throws IOException {
        List<Double> values = new ArrayList<>();
        for (String line : Files.readAllLines(folder.resolve("out").resolve(run).resolve("train_log.jsonl"))) {
            JsonNode record = JSON.readTree(line);
            if (record.has(field)) {
                values.add(record.path(field).asDouble());
            }
        }
        return values;
    }

    private static String shown(List<Double> values) {
        return values.size() + " values, from " + shown(values.get(0)) + " to " + shown(values.get(values.size() - 1));
    }

    /** A run that goes on for long comes to losses for which four places are too few. */
    private static String shown(double loss) {
        return loss < 1e-3
                ? String.format(Locale.ROOT, "%.2e", loss).replaceAll("e-0*", "e-")
                : String.format(Locale.ROOT, "%.4f", loss);
    }

    /** Ticks these runs and no others. */
    private static void choose(String... names) {
        await("there are runs", () -> !all("[data-run]").isEmpty());
        for (String name : each("[data-run]", item -> item.getDomAttribute("data-run"))) {
            boolean wanted = List.of(names).contains(name);
            if (steady(() -> browser.findElement(box(name)).isSelected()) != wanted) {
                click(box(name));
            }
        }
    }

    private static By box(String name) {
        return By.cssSelector("[data-focus='box " + name + "']");
    }

    private static By button(String verb, String name) {
        return By.cssSelector("[data-focus='" + verb + " " + name + "']");
    }

    @Test
    @Order(1)
    void runsOfTheirLogsLieOverEachOther() throws Exception {
        open("runs");
        choose("first", "second");
        String first = shown(logged("first", "loss"));
        String second = shown(logged("second", "loss"));
        await(
                "both curves are there as they were logged",
                () -> curves().contains("first, raw: " + first) && curves().contains("second, raw: " + second));
        assertThat(curves())
                .contains("first, smoothed: 24 values", "second, smoothed: 8 values")
                .contains("first, held out: " + shown(logged("first", "eval_loss")));
        assertThat(each("[data-run] .swatch", swatch -> swatch.getCssValue("background-color")))
                .as("each has a colour of its own")
                .hasSize(2)
                .doesNotHaveDuplicates();
        click(By.cssSelector("#page-runs .charts summary"));
        await(
                "the numbers are there",
                () -> !firstStep().isEmpty()); // the browser tells the page later that they are wanted
        assertThat(firstStep())
                .as("the numbers of step 1, of both")
                .hasSize(1)
                .first()
                .asString()
                .contains(
                        String.format(
                                Locale.ROOT, "%.4f", logged("first", "loss").get(0)),
                        String.format(
                                Locale.ROOT, "%.4f", logged("second", "loss").get(0)));
        browser.executeScript("const one = document.getElementById('smoothing'); one.value = 0;"
                + " one.dispatchEvent(new Event('input'));");
        await("not smoothed, the curves are one", () -> curves().contains("first, smoothed: " + first));
        assertThat(text("page-runs")).contains("trained from a shell").doesNotContain(folder.toString());
        screens("runs");

        choose("second");
        await("one is gone", () -> !curves().contains("first") && curves().contains("second, raw: " + second));
        browser.navigate().refresh();
        await("the choice is remembered", () -> curves().contains("second, raw: " + second));
        assertThat(curves()).doesNotContain("first");
    }

    /** The rows of step 1 in the tables of numbers that are open. */
    private static List<String> firstStep() {
        return each("#page-runs .charts tbody tr", WebElement::getText).stream()
                .filter(row -> row.startsWith("1 "))
                .toList();
    }

    @Test
    @Order(2)
    void aFormIsACommandAndAFileAndAFileIsAForm() throws Exception {
        browser.executeCdpCommand(
                "Browser.grantPermissions",
                Map.of("permissions", List.of("clipboardReadWrite", "clipboardSanitizedWrite")));
        open("train");
        fill("run-name", "austen");
        fill("option-data", "questions.json");
        fill("option-max-steps", "7");
        fill("option-ask", QUESTION);
        await("the command line is shown", () -> text("command").contains("--ask 'Who is Mr. Collins?'"));
        String command = text("command");
        assertThat(command)
                .startsWith("lorica train --model austen-7m-q4_0.gguf")
                .contains("--data questions.json", "--max-steps 7", "--output austen");
        assertThat(text("page-train")).doesNotContain(folder.toString());
        click(By.cssSelector("[aria-label='Copy the command']"));
        await("it is said to be copied", () -> text("note").equals("Copied the command."));
        assertThat(clipboard()).isEqualTo(command);
        click(By.cssSelector("[aria-label='Copy the YAML']"));
        await("it is said to be copied", () -> text("note").equals("Copied the YAML."));
        String yaml = clipboard();
        assertThat(yaml).contains("ask_at_evals: true", "data: questions.json");

        browser.navigate().refresh();
        ready();
        await("another form", () -> !text("command").contains("--max-steps"));
        click(By.xpath("//summary[text()='Read a YAML file into the form']"));
        read(yaml);
        fill("run-name", "austen");
        await("the YAML that was copied means the same", () -> text("command").equals(command));

        read("base_model: austen-7m-q4_0.gguf\nadapter: lora\nlora_r: 8\nlora_alpha: 32\nnum_epochs: 2\n"
                + "datasets:\n  - path: questions.json\n");
        await("one of another program is read too", () -> text("command").contains("--lora-alpha 32"));
        assertThat(value("option-lora-r")).isEqualTo("8");
        assertThat(value("option-epochs")).isEqualTo("2");
        assertThat(value("option-max-steps"))
                .as("what was there before is gone")
                .isEmpty();
        browser.findElement(By.id("yaml")).clear();
        browser.findElement(By.id("yaml")).sendKeys("learning_rat: 1");
        click(By.id("read"));
        await("what it does not know it names", () -> text("note").contains("learning_rat"));
        assertThat(value("option-lora-r")).as("and leaves the form alone").isEqualTo("8");
    }

    private static String clipboard() {
        return (String) browser.executeAsyncScript(
                "const done = arguments[0]; navigator.clipboard.readText().then(done, error => done(String(error)));");
    }

    private static void read(String yaml) {
        browser.executeScript("document.getElementById('yaml').value = arguments[0]", yaml);
        click(By.id("read"));
        await("it is read", () -> text("note").startsWith("Read into the form."));
    }

    private static String value(String id) {
        return steady(() -> browser.findElement(By.id(id)).getDomProperty("value"));
    }

    @Test
    @Order(3)
    void adaptersAreWrittenInOtherFormsAndAnswerAlike() throws Exception {
        open("adapters");
        await("the adapter says where it comes from", () -> text("page-adapters")
                .contains("rank 4"));
        click(By.cssSelector("[data-adapter='first'] summary"));
        write("peft", "first", null);
        await("what is there is not written over", () -> text("note").contains("first is there already"));
        write("peft", "as-peft", null);
        write("gguf", "as-gguf", null);
        write("merged", "merged.gguf", null);
        write("quantized", "quantized.gguf", "Q8_0");
        for (String path : List.of("as-peft", "as-gguf", "merged.gguf", "quantized.gguf")) {
            await(path + " is written", () -> isExport(path, "done"));
        }
        assertThat(folder.resolve("out/as-peft/adapter_model.safetensors")).isNotEmptyFile();
        assertThat(folder.resolve("out/as-gguf/adapter.gguf")).isNotEmptyFile();
        assertThat(Files.size(folder.resolve("out/merged.gguf")))
                .isGreaterThan(Files.size(folder.resolve("out/quantized.gguf")));
        assertThat(text("exports")).contains("first as quantized, Q8_0", "MiB").doesNotContain(folder.toString());
        String stopped = writesAndStops();
        screens("adapters");
        assertThat(folder.resolve("out").resolve(stopped)).doesNotExist();

        await(
                "what was written is an adapter too",
                () -> all("[data-adapter='as-gguf']").size() == 1);
        for (String adapter : List.of("as-gguf", "as-peft")) {
            click(By.cssSelector("nav a[href='#adapters']"));
            By chat = By.cssSelector("[aria-label='Chat with " + adapter + "']");
            await("it is listed", () -> browser.findElements(chat).stream().anyMatch(WebElement::isDisplayed));
            click(chat);
            String place = adapter.equals("as-gguf") ? "chat-model-1" : "chat-model-2";
            await("it is chosen", () -> adapter.equals(value(place)));
        }
        List<String> answers = chat(3);
        assertThat(answers.get(1))
                .isNotEqualTo(answers.get(0))
                .isEqualTo(answers.get(2))
                .isNotEmpty();
        screens("chat");
    }

    /** Returns the name of what was to be written behind another one, and was stopped; unless it was written sooner, and then another is. */
    private static String writesAndStops() {
        for (int i = 0; i < 10; i++) {
            String before = "before-" + i + ".gguf";
            String more = "more-" + i + ".gguf";
            write("merged", before, null);
            write("merged", more, null); // waits for the one before it
            By stop = By.cssSelector("[aria-label='Stop writing " + more + "']");
            await("it can be stopped, or is written", () -> {
                steady(() -> browser.findElements(stop).stream()
                        .map(button -> {
                            button.click();
                            return button;
                        })
                        .toList());
                return isExport(more, "stopped") || isExport(more, "done");
            });
            await("the one before it is written", () -> isExport(before, "done"));
            if (isExport(more, "stopped")) {
                return more;
            }
        }
        throw new AssertionError("everything was written before it could be stopped");
    }

    private static boolean isExport(String path, String state) {
        return !all("[data-path='" + path + "'][data-state='" + state + "']").isEmpty();
    }

    /** Writes the first adapter in another form. */
    private static void write(String form, String name, String type) {
        browser.executeScript(
                "const form = document.getElementById('form-first'); form.value = arguments[0];"
                        + " form.dispatchEvent(new Event('change'));",
                form);
        assertThat(steady(() -> browser.findElement(By.id("type-first")).isDisplayed()))
                .isEqualTo(form.equals("quantized"));
        if (type != null) {
            browser.executeScript("document.getElementById('type-first').value = arguments[0];", type);
        }
        fill("name-first", name);
        click(By.cssSelector("[aria-label='Write first in this form']"));
    }

    /** The same question to so many, with the likeliest answers. */
    private static List<String> chat(int models) {
        fill("chat-temperature", "0");
        fill("chat-tokens", "16");
        fill("chat-text", QUESTION);
        int before = answers().size();
        browser.findElement(By.id("chat-text")).sendKeys(Keys.ENTER);
        await(
                "all have answered",
                () -> answers().size() == before + models
                        && browser.findElement(By.id("chat-ask")).isEnabled());
        return answers().subList(before, before + models);
    }

    private static WebElement focused() {
        return browser.switchTo().activeElement();
    }

    private static boolean isFocused(String selector) {
        return (Boolean) browser.executeScript("return document.activeElement.matches(arguments[0])", selector);
    }

    /** Presses Tab until this has the focus; what has it meanwhile shows it, and lies before what has it next. */
    private static void tabTo(String selector) {
        for (int i = 0; i < 60; i++) {
            browser.executeScript("window.before = document.activeElement");
            new Actions(browser).sendKeys(Keys.TAB).perform();
            assertThat(browser.executeScript("const one = document.activeElement, style = getComputedStyle(one);"
                            + " const box = one.getBoundingClientRect();"
                            + " const follows = before === document.body || !document.contains(before)"
                            + "   || before.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_FOLLOWING;"
                            + " return one === document.body ? 'the focus is lost'"
                            + "   : style.outlineStyle === 'none' || !parseFloat(style.outlineWidth) ? 'no outline: ' + one.outerHTML"
                            + "   : !box.width || !box.height ? 'not to be seen: ' + one.outerHTML"
                            + "   : !follows ? 'out of order: ' + one.outerHTML : ''"))
                    .isEqualTo("");
            if (isFocused(selector)) {
                return;
            }
        }
        throw new AssertionError("Tab does not lead to " + selector);
    }

    private static void type(CharSequence... keys) {
        new Actions(browser).sendKeys(keys).perform();
    }

    @Test
    @Order(4)
    void everythingIsDoneWithTheKeyboardAlone() throws Exception {
        open("train");
        tabTo("a.skip");
        type(Keys.ENTER);
        assertThat(isFocused("main")).isTrue();
        tabTo("#run-name");
        type("keys"); // what stood there is marked, and goes
        tabTo("#option-data");
        type("questions.json");
        tabTo("#option-max-steps");
        type("100000");
        tabTo("#option-logging-steps");
        type("1");
        tabTo("summary");
        tabTo("#look");
        type(Keys.ENTER);
        await("the plan is read first", () -> isFocused("#plan h2"));
        browser.executeScript("document.getElementById('look').focus()");
        tabTo("#start");
        type(Keys.ENTER);
        await(
                "the runs are shown",
                () -> isFocused("main") && browser.getCurrentUrl().endsWith("#runs"));
        awaitRun("keys", "running");
        await("it is on its way", () -> values() > 1);
        tabTo("[data-focus='box keys']");
        tabTo("[data-focus='stop keys']");
        type(Keys.ENTER);
        awaitRun("keys", "stopped");
        await("the focus stays with the run", () -> isFocused("[data-run='keys'] *"));
        assertThat(browser.executeScript(
                        "return document.querySelector('#page-runs [role=status].unseen').textContent"))
                .as("what a screen reader is told")
                .asString()
                .contains("keys stopped");
        tabTo("[data-focus='delete keys']");
        type(Keys.ENTER);
        await("it is asked", () -> !all("dialog[open]").isEmpty());
        type(Keys.ESCAPE);
        await("nothing is done", () -> all("dialog[open]").isEmpty());
        await("the focus is where it was", () -> isFocused("[data-focus='delete keys']"));
        assertThat(folder.resolve("out/keys")).isDirectory();
        type(Keys.ENTER);
        await("it is asked", () -> !all("dialog[open]").isEmpty());
        assertThat(isFocused("dialog[open] button:not(.first)"))
                .as("Enter alone deletes nothing")
                .isTrue();
        tabTo("dialog[open] button.first");
        type(Keys.ENTER);
        await("it is gone", () -> all("[data-run='keys']").isEmpty());
        assertThat(folder.resolve("out/keys")).doesNotExist();

        open("chat");
        tabTo("nav a[href='#chat']");
        tabTo("#chat-text");
        type(QUESTION);
        tabTo("#chat-tokens");
        type("4");
        tabTo("#chat-ask");
        type(Keys.ENTER);
        await(
                "it has answered, and another question can be typed",
                () -> answers().size() == 1 && isFocused("#chat-text"));
        tabTo("#chat-scale-1");
        type(Keys.ARROW_LEFT);
        assertThat(value("chat-scale-1")).isEqualTo("0.95");
    }

    @Test
    @Order(5)
    void runsAreRenamedAndDeletedOnceThatIsConfirmed() throws Exception {
        open("runs");
        choose("first", "second");
        await("both are drawn", () -> curves().contains("second, raw"));
        click(button("rename", "second"));
        await("its name is asked for", () -> !all("#new-name").isEmpty());
        fill("new-name", "first");
        click(By.cssSelector("dialog[open] button.first"));
        await("it is taken", () -> text("note").contains("there is something called first already"));
        click(button("rename", "second"));
        await("its name is asked for", () -> !all("#new-name").isEmpty());
        screens("rename");
        fill("new-name", "third");
        browser.findElement(By.id("new-name")).sendKeys(Keys.ENTER);
        await(
                "it is called so",
                () -> all("[data-run='second']").isEmpty() && curves().contains("third, raw: 8 values"));
        assertThat(folder.resolve("out/third/adapter.gguf")).isNotEmptyFile();
        assertThat(folder.resolve("out/second")).doesNotExist();

        click(button("delete", "third"));
        await("it is asked", () -> !all("dialog[open]").isEmpty());
        assertThat(steady(() ->
                        browser.findElement(By.cssSelector("dialog[open]")).getText()))
                .contains("There is no way back");
        click(By.xpath("//dialog[@open]//button[text()='Leave it']"));
        await("nothing is done", () -> all("dialog[open]").isEmpty());
        assertThat(folder.resolve("out/third/adapter.gguf")).isNotEmptyFile();
        click(button("delete", "third"));
        await("it is asked", () -> !all("dialog[open]").isEmpty());
        click(By.cssSelector("dialog[open] button.first"));
        await("it is gone", () -> all("[data-run='third']").isEmpty() && !curves().contains("third"));
        assertThat(folder.resolve("out/third")).doesNotExist();
        assertThat(curves()).contains("first, raw: 24 values");
    }

    @Test
    @Order(6)
    void aRunOutlivesItsPagesAndItsServerAndItsAdapterAnswersOtherwise() throws Exception {
        open("train");
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

        String first = browser.getWindowHandle();
        browser.switchTo().newWindow(WindowType.WINDOW);
        open("runs");
        choose("austen");
        await("another page has all of the curve", () -> values() > seen + 5);
        long here = values();
        await("and sees it go on", () -> values() > here + 2);
        click(button("stop", "austen"));
        awaitRun("austen", "stopped");
        String second = browser.getWindowHandle();
        browser.switchTo().window(first);
        awaitRun("austen", "stopped");
        String whole = shown(logged("austen", "loss"));
        await("what one has stopped is whole on the other", () -> curves().contains("austen, raw: " + whole));
        browser.switchTo().window(second);
        await("and on itself", () -> curves().contains("austen, raw: " + whole));
        browser.close();
        browser.switchTo().window(first);

        server.close();
        server = serve();
        open("runs");
        choose("austen");
        awaitRun("austen", "stopped");
        await("another server has the curve too", () -> curves().contains("austen, raw: " + whole));
        long stoppedAt = values();
        click(button("resume", "austen"));
        await("it goes on", () -> values() > stoppedAt + 10);
        click(button("stop", "austen"));
        awaitRun("austen", "stopped");
        await("every step is there once", () -> text("page-runs").contains("step " + values() + ","));
        await(
                "the question was asked before and at evaluations",
                () -> text("page-runs").contains("before")
                        && all("#page-runs .card tbody tr").size() >= 3);
        screens("stopped");

        open("adapters");
        await("the adapter is there", () -> !all("[data-adapter='austen']").isEmpty());
        click(By.cssSelector("[aria-label='Chat with austen']"));
        await("the adapter is chosen", () -> "austen".equals(value("chat-model-1")));
        List<String> answers = chat(2);
        assertThat(answers.get(0)).isNotEqualTo(answers.get(1)).isNotEmpty();
        browser.executeScript("const scale = document.getElementById('chat-scale-1'); scale.value = 0;"
                + " scale.dispatchEvent(new Event('input'));");
        click(By.xpath("//button[text()='Clear']"));
        assertThat(chat(2)).as("with an adapter of scale 0 it is the base").containsOnly(answers.get(0));
    }

    private static Path program(String... names) {
        return Stream.of(names)
                .flatMap(name -> Stream.of(System.getenv("PATH").split(File.pathSeparator))
                        .map(directory -> Path.of(directory, name)))
                .filter(Files::isExecutable)
                .findFirst()
                .orElse(null);
    }

    private static void open(String part) throws Exception {
        String address = server.uri() + "/#" + part;
        browser.get("about:blank");
        browser.get(address);
        ready();
    }

    private static void ready() {
        await("the page is there", () -> "true"
                .equals(browser.findElement(By.tagName("body")).getDomAttribute("data-ready")));
    }

    private static List<WebElement> all(String selector) {
        return browser.findElements(By.cssSelector(selector));
    }

    /** What is asked of each of these elements. */
    private static List<String> each(String selector, Function<WebElement, String> question) {
        return steady(() -> all(selector).stream().map(question).toList());
    }

    private static String text(String id) {
        return steady(() -> browser.findElement(By.id(id)).getText());
    }

    private static void fill(String id, String text) {
        steady(() -> {
            WebElement field = browser.findElement(By.id(id));
            field.clear();
            field.sendKeys(text);
            assertThat(field.getDomProperty("value")).isEqualTo(text);
            return field;
        });
    }

    /** Clicks until it was this that was clicked: it may move away from below the mouse, where something else grows just then. */
    private static void click(By what) {
        steady(() -> {
            WebElement element = browser.findElement(what);
            browser.executeScript(
                    "window.clicked = false; arguments[0].scrollIntoView({block: 'center'});"
                            + " arguments[0].addEventListener('click', () => { window.clicked = true; }, {capture: true, once: true});",
                    element);
            element.click();
            if (!(Boolean) browser.executeScript("return window.clicked")) {
                throw new StaleElementReferenceException(what + " was not below the mouse any more");
            }
            return element;
        });
    }

    /** Done with elements of which none was replaced by the page meanwhile: it draws anew whenever a run goes on. */
    private static <T> T steady(Supplier<T> what) {
        long end = System.nanoTime() + PATIENCE.toNanos();
        while (true) {
            try {
                return what.get();
            } catch (StaleElementReferenceException | ElementClickInterceptedException e) {
                if (System.nanoTime() > end) {
                    throw e;
                }
            }
        }
    }

    private static void awaitRun(String name, String state) {
        await("the run is " + state, () -> !all("[data-run='" + name + "'][data-state='" + state + "']")
                .isEmpty());
    }

    /** The curves of the loss, as a screen reader is told of them. */
    private static String curves() {
        return (String) browser.executeScript("const plot = document.querySelector('.card:not([hidden]) > .plot');"
                + " return plot?.getAttribute('aria-label') ?? '';");
    }

    /** How many values the first raw curve of the loss has. */
    private static long values() {
        Matcher raw = Pattern.compile("raw: (\\d+) values").matcher(curves());
        return raw.find() ? Long.parseLong(raw.group(1)) : 0;
    }

    /** The answers in the columns of the chat, without who says it. */
    private static List<String> answers() {
        return each(".turn:not(.mine) > span:last-child", WebElement::getText);
    }

    private interface Condition {
        boolean holds();
    }

    private static void await(String what, Condition condition) {
        long end = System.nanoTime() + PATIENCE.toNanos();
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

    /** What axe finds that keeps people from using the page as it is now. */
    private static void judge(String what, String options) {
        if (!(Boolean) browser.executeScript("return 'axe' in window")) {
            browser.executeScript(axe);
        }
        Object found = browser.executeAsyncScript(
                "const done = arguments[1]; axe.run(document, JSON.parse(arguments[0])).then(result => done(result.passes.length"
                        + " ? result.violations.map(one => one.id + ': '"
                        + " + one.nodes.map(node => node.target + ' ' + node.failureSummary).join('; ')) : ['nothing was looked at']),"
                        + " error => done([String(error)]));",
                options);
        assertThat((List<?>) found).as("%s is for everybody", what).isEmpty();
    }

    /**
     * What is shown is wide enough for a phone and a desk, where nothing is wider than the window, and for everybody, in light and dark;
     * if pictures are kept, of each.
     */
    private static void screens(String name) throws IOException {
        String kept = System.getProperty("lorica.screenshots");
        for (String scheme : List.of("light", "dark")) {
            browser.executeCdpCommand(
                    "Emulation.setEmulatedMedia",
                    Map.of("features", List.of(Map.of("name", "prefers-color-scheme", "value", scheme))));
            for (Dimension size : List.of(PHONE, DESK)) {
                browser.executeCdpCommand(
                        "Emulation.setDeviceMetricsOverride",
                        Map.of(
                                "width",
                                size.width,
                                "height",
                                size.height,
                                "deviceScaleFactor",
                                1,
                                "mobile",
                                size == PHONE));
                sleep(kept == null ? 50 : 500);
                long wider = ((Number)
                                browser.executeScript("return document.documentElement.scrollWidth - innerWidth"))
                        .longValue();
                assertThat(wider).as("%s at a width of %d", name, size.width).isLessThanOrEqualTo(0);
                if (kept != null) {
                    Map<?, ?> picture =
                            browser.executeCdpCommand("Page.captureScreenshot", Map.of("captureBeyondViewport", true));
                    Files.write(
                            Files.createDirectories(Path.of(kept))
                                    .resolve(name + "-" + (size == PHONE ? "phone-" : "desk-") + scheme + ".png"),
                            Base64.getDecoder().decode((String) picture.get("data")));
                }
            }
            judge(name, scheme.equals("light") ? "{}" : "{\"runOnly\": [\"color-contrast\"]}");
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
