package dev.lorica.jinja;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatExceptionOfType;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.jinja.JinjaTemplate.Span;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.time.LocalDate;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import java.util.zip.GZIPInputStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

/** Against what transformers makes of the same, as scripts/make_chat_goldens.py wrote it down. */
class JinjaTemplateTest {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final LocalDate DATE = LocalDate.of(2024, 7, 26);

    /** A piece of the language, and its text, {@code null} where it fails. */
    record Snippet(String source, String text) {}

    static Stream<Snippet> snippets() throws IOException {
        return StreamSupport.stream(goldens().get("snippets").spliterator(), false)
                .map(node -> new Snippet(
                        node.get("source").asText(), node.get("text").textValue()));
    }

    @ParameterizedTest
    @MethodSource("snippets")
    void doesWhatJinja2Does(Snippet snippet) throws IOException {
        Map<String, Object> variables = variables(goldens().get("variables"));
        if (snippet.text == null) {
            assertThatExceptionOfType(JinjaException.class).isThrownBy(() -> render(snippet.source, variables));
        } else {
            assertThat(render(snippet.source, variables)).isEqualTo(snippet.text);
        }
    }

    /** Templates as models carry them; they are not ours to keep. */
    @Test
    void rendersRealTemplatesToTheByte() throws Exception {
        String named = System.getProperty("lorica.chatTemplates");
        assumeTrue(named != null, "-Dlorica.chatTemplates=FOLDER names no folder with templates of real models");
        Path folder = Path.of(named);
        int checked = 0;
        for (JsonNode golden : goldens().get("templates")) {
            Path file = folder.resolve(golden.get("name").asText() + ".jinja");
            String source = Files.readString(file);
            String checksum = HexFormat.of()
                    .formatHex(MessageDigest.getInstance("SHA-256").digest(source.getBytes(StandardCharsets.UTF_8)));
            assertThat(checksum)
                    .as("checksum of %s", file)
                    .isEqualTo(golden.get("sha256").asText());
            checkAll(source, golden);
            checked++;
        }
        assertThat(checked).isGreaterThanOrEqualTo(70);
    }

    private static void checkAll(String source, JsonNode golden) throws IOException {
        JinjaTemplate template = JinjaTemplate.compile(source);
        JsonNode conversations = goldens().get("conversations");
        int prompts = 0;
        for (int i = 0; i < conversations.size(); i++) {
            JsonNode conversation = conversations.get(i);
            check(
                    template,
                    golden,
                    conversation,
                    null,
                    false,
                    golden.get("texts").get(i));
            if (conversation.get(conversation.size() - 1).get("role").asText().equals("user")) {
                check(
                        template,
                        golden,
                        conversation,
                        null,
                        true,
                        golden.get("prompts").get(prompts++));
            }
        }
        check(template, golden, goldens().get("tool_conversation"), goldens().get("tools"), false, golden.get("tools"));
    }

    private static void check(
            JinjaTemplate template,
            JsonNode golden,
            JsonNode messages,
            JsonNode tools,
            boolean prompt,
            JsonNode expected)
            throws IOException {
        Map<String, Object> variables = new LinkedHashMap<>();
        variables.put("messages", JSON.convertValue(messages, Object.class));
        variables.put("tools", tools == null ? null : JSON.convertValue(tools, Object.class));
        variables.put("documents", null);
        variables.put("add_generation_prompt", prompt);
        if (!golden.get("bos").isNull()) {
            variables.put("bos_token", golden.get("bos").asText());
        }
        variables.put("eos_token", golden.get("eos").asText());
        String name = golden.get("name").asText() + ": " + messages;
        if (expected.isNull()) {
            assertThatExceptionOfType(JinjaException.class).as(name).isThrownBy(() -> template.render(variables, DATE));
        } else {
            assertThat(template.render(variables, DATE).text()).as(name).isEqualTo(expected.asText());
        }
    }

    @Test
    void saysWhereGenerationsAre() {
        JinjaTemplate template = JinjaTemplate.compile(
                "{% for m in messages %}<{{ m }}>{% generation %}[{{ m }}]{% endgeneration %}{% endfor %}");

        JinjaTemplate.Rendering rendering = template.render(Map.of("messages", List.of("a", "bc")), DATE);

        assertThat(rendering.text()).isEqualTo("<a>[a]<bc>[bc]");
        assertThat(rendering.generations()).containsExactly(new Span(3, 6), new Span(10, 14));
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '§',
            value = {
                "{% if x %}                        § line 1: {% elif %} or {% else %} or {% endif %} is missing",
                "{{ x                              § line 1: \"}}\" is missing",
                "{{ x + }}                         § line 1: unexpected \"}}\"",
                "{{ 'x }}                          § line 1: a text that begins with ' does not end",
                "{% include 'x' %}                 § line 1: there is no {% include %} in a chat template",
                "{% import 'os' as os %}           § line 1: there is no {% import %} in a chat template",
                "{{ x | shell }}                   § line 1: there is no filter \"shell\"",
                "{{ x is evil }}                   § line 1: there is no test \"evil\"",
                "{# comment                        § line 1: a comment does not end",
                "{{ ''.__class__ }}{{ ''.__class__.__mro__ }} § line 1: __class__ is undefined",
                "{{ x.y.z }}                       § line 1: x is undefined",
                "{% for i in range(10**9) %}{% endfor %} § line 1: a list of more than 1000000 elements",
                "{{ 'x' * 10**9 }}                 § line 1: the template produces more than 64 million characters",
                "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }} § line 1: nested too deeply",
                "{% break %}                       § break or continue outside of a loop",
                "{{ raise_exception('my own words') }} § my own words"
            })
    void refusesWithOneLine(String source, String message) {
        assertThatExceptionOfType(JinjaException.class)
                .isThrownBy(() -> render(source, Map.of()))
                .withMessage(message);
    }

    @Test
    void namesTheLine() {
        assertThatExceptionOfType(JinjaException.class)
                .isThrownBy(() -> render("a\n{# one\ntwo #}\n{%- set x = 1 %}\n\n  {{ x.y.z }}", Map.of()))
                .withMessage("line 6: y is undefined");
    }

    @Test
    void endsWhatDoesNotEnd() {
        String loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = 1 %}{% endfor %}{% endfor %}";

        assertThatExceptionOfType(JinjaException.class)
                .isThrownBy(() -> render(loops, Map.of()))
                .withMessageContaining("takes too many steps");
        assertThatExceptionOfType(JinjaException.class)
                .isThrownBy(
                        () -> JinjaTemplate.compile("{{ " + "(".repeat(100_000) + "1" + ")".repeat(100_000) + " }}"))
                .withMessageContaining("nested too deeply");
    }

    @Test
    void textOfTheInputIsNoTemplate() {
        assertThat(render("{{ x }}", Map.of("x", "{{ 7 * 7 }}{% raw %}"))).isEqualTo("{{ 7 * 7 }}{% raw %}");
    }

    private static String render(String source, Map<String, Object> variables) {
        return JinjaTemplate.compile(source).render(variables, DATE).text();
    }

    private static Map<String, Object> variables(JsonNode node) {
        Map<String, Object> variables = new LinkedHashMap<>();
        node.fields()
                .forEachRemaining(
                        field -> variables.put(field.getKey(), JSON.convertValue(field.getValue(), Object.class)));
        return variables;
    }

    private static JsonNode goldens() throws IOException {
        try (InputStream in = JinjaTemplateTest.class.getResourceAsStream("/chat/goldens.json.gz")) {
            return JSON.readTree(new GZIPInputStream(in));
        }
    }
}
