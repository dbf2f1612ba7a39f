package dev.lorica.jinja;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatExceptionOfType;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;

import com.sun.management.ThreadMXBean;
import java.lang.management.ManagementFactory;
import java.time.Duration;
import java.time.LocalDate;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * No template hangs, fills the memory or fails otherwise than with a {@link JinjaException}. -Dlorica.jinjaFuzz=100000 tries so
 * many, from the seed -Dlorica.jinjaFuzzSeed on.
 */
class JinjaFuzzTest {
    private static final ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
    private static final LocalDate DATE = LocalDate.of(2024, 7, 26);

    /** Of the clock, on a machine that is busy with other things too. */
    private static final Duration MOST = Duration.ofMinutes(3);

    /** Of one template on one processor. */
    private static final long MOST_NANOS = 10_000_000_000L;

    /** Allocated by one template from first to last, most of it garbage soon. */
    private static final long MOST_BYTES = 8L << 30;

    @Test
    void anyTemplateEndsSoonWithATextOrOneLine() {
        int count = Integer.getInteger("lorica.jinjaFuzz", 300);
        long first = Long.getLong("lorica.jinjaFuzzSeed", 1);
        int rendered = 0;
        int compiled = 0;
        Map<String, Integer> refusals = new HashMap<>();
        for (long seed = first; seed < first + count; seed++) {
            String source = TemplateGrammar.template(seed);
            String name = "seed " + seed + ": " + source;
            long[] bytes = new long[1];
            boolean[] done = new boolean[2];
            assertTimeoutPreemptively(
                    MOST,
                    () -> {
                        long before = threads.getThreadAllocatedBytes(
                                Thread.currentThread().getId());
                        try {
                            JinjaTemplate template = JinjaTemplate.compile(source);
                            done[0] = true;
                            template.render(variables(), DATE);
                            done[1] = true;
                        } catch (JinjaException e) {
                            assertThat(e.getMessage())
                                    .as(name)
                                    .doesNotContain("\n")
                                    .hasSizeLessThan(1200);
                            refusals.merge(kind(e.getMessage()), 1, Integer::sum);
                        } catch (RuntimeException | Error e) {
                            throw new AssertionError(name, e);
                        }
                        bytes[0] = threads.getThreadAllocatedBytes(
                                        Thread.currentThread().getId())
                                - before;
                    },
                    name);
            assertThat(bytes[0]).as(name).isLessThan(MOST_BYTES);
            compiled += done[0] ? 1 : 0;
            rendered += done[1] ? 1 : 0;
        }
        // A fuzzer whose templates are refused at the door tests nothing.
        assertThat(compiled).isGreaterThan(count * 9 / 10);
        assertThat(rendered).isGreaterThan(count / 20);
        assertThat(refusals).hasSizeGreaterThan(Math.min(10, count / 50));
    }

    private static String kind(String message) {
        return message.replaceAll("^line \\d+: ", "").replaceAll("[^a-z ].*", "");
    }

    private static Map<String, Object> variables() {
        Map<String, Object> variables = new LinkedHashMap<>();
        variables.put(
                "messages",
                List.of(Map.of("role", "user", "content", "Hi"), Map.of("role", "assistant", "content", "")));
        variables.put("text", "hello world ".repeat(100));
        variables.put("items", List.of(3, 1, 2, 1));
        variables.put("m", Map.of("a", 1, "role", "user", "content", "é"));
        variables.put("x", 5);
        variables.put("y", List.of("a", "b"));
        return variables;
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "{{ [1]|batch(2000000000,0)|list|length }}",
                "{{ range(1000000)|batch(1,0)|map('batch',1000000,0)|list|length }}",
                "{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
                "{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x == ns.x }}",
                "{% set ns = namespace(x=1,y=1) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
                        + "{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
                "{% set ns = namespace(x=1,y=1) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
                        + "{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x < ns.y }}",
                "{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}"
                        + "{{ {ns.x: 1} }}",
                "{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}"
                        + "{{ [ns.x]|unique|list|length }}",
                "{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}"
                        + "{% for i in [1, 2] %}{{ loop.changed(ns.x) }}{% endfor %}",
                "{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}"
                        + "{{ ns.x|tojson }}",
                "{% set ns = namespace(x=1) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
                "{% set ns = namespace(x=1) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}"
                        + "{{ ns.x|tojson }}",
                "{% set a = 'a' * 30000000 %}{{ (a ~ 'b') in (a ~ a) }}{{ (a ~ a).count('a' * 10000000 ~ 'b') }}"
                        + "{% for i in range(1000) %}{{ (a ~ 'b') in a }}{% endfor %}",
                "{% set a = 'a' * 3000000 %}{{ a.strip('b' * 3000000 ~ 'a')|length }}"
                        + "{% for i in range(100000) %}{{ a.strip('b')|length }}{% endfor %}",
                "{% set a = 'a' * 60000000 %}{{ a.replace('a', 'a' * 60000000)|length }}",
                "{% set a = ('a ' * 30000000).split() %}{{ a|length }}",
                "{{ ('\\n' * 60000000)|indent(100)|length }}{{ ('\\n' * 60000000).splitlines()|length }}",
                "{% for c in 'a' * 60000000 %}x{% endfor %}",
                "{{ ('a' * 60000000)[0] }}{% for i in range(100000) %}{{ ('a' * 1000000)[i] }}{% endfor %}",
                "{% set ns = namespace(x='a' * 1000) %}{% for i in range(100000) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
                "{% set ns = namespace(x=[]) %}{% for i in range(10000) %}{% set ns.x = ns.x + ['a' * 1000000] %}{% endfor %}",
                "{% set ns = namespace(x=[]) %}{% for i in range(1000000) %}{% macro f() %}{% endmacro %}"
                        + "{% set ns.x = [ns.x, f] %}{% endfor %}",
                "{{ [[[1]]]|tojson(indent='a' * 60000000) }}",
                "{% for i in range(1000000) %}{% for j in range(1000000) %}{% endfor %}{% endfor %}",
                "{% for i in range(1000000) %}{{ range(1000000)|sum }}{% endfor %}",
                "{% for i in range(1000000) %}{{ range(1000000)|sort|last }}{% endfor %}",
                "{% for i in range(1000000) %}{{ 5 in range(1000000)|list }}{{ range(999999) == range(999999) }}{% endfor %}",
                "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
                "{% macro f(n) %}{% call g() %}{{ f(n) }}{% endcall %}{% endmacro %}{% macro g() %}{{ caller() }}"
                        + "{% endmacro %}{{ f(0) }}",
                "{% macro f(n) %}{{ f(n - 1) ~ f(n - 1) if n }}{% endmacro %}{{ f(90) }}",
                "{{ [[1]]|map('map', 'map', 'map', 'list')|list }}",
                "{{ 'a'.join(range(1000000)|map('string')|list * 1) * 100 }}",
                "{{ f(*range(1000000)) }}{{ dict(**dict(a=1)) }}",
                "{{ (0.1).x }}{{ 2 ** 9223372036854775807 }}",
                "{{ m['a\\n' * 20000000].x }}",
                "{{ raise_exception('a' * 60000000) }}"
            })
    void hostileTemplatesEndSoon(String source) {
        assertTimeoutPreemptively(MOST, () -> {
            long begun = threads.getCurrentThreadCpuTime();
            try {
                JinjaTemplate.compile(source).render(variables(), DATE);
            } catch (JinjaException e) {
                assertThat(e.getMessage()).doesNotContain("\n").hasSizeLessThan(1200);
            }
            assertThat(threads.getCurrentThreadCpuTime() - begun).isLessThan(MOST_NANOS);
        });
    }

    @Test
    void nothingIsAKeyThatNoMapOfACallersHas() {
        String source = "{{ m[none] is defined }} {{ none in m }} {{ m.get(none, 'no') }} {{ m == {none: 1} }}";

        assertThat(JinjaTemplate.compile(source)
                        .render(Map.of("m", Map.of("a", 1)), DATE)
                        .text())
                .isEqualTo("False False no False");
    }

    @Test
    void longSourcesAreReadInTheTimeThatTheirLengthTakes() {
        assertTimeoutPreemptively(MOST, () -> {
            assertThat(render("{% if x == 0 %}0" + "{% elif x == 1 %}1".repeat(50_000)
                            + "{% elif x == 5 %}five{% endif %}"))
                    .isEqualTo("five");
            assertThat(render("{{ 0" + " + 1".repeat(200_000) + " }}")).isEqualTo("200000");
            assertThat(render("{{ ''" + " ~ 'a'".repeat(100_000) + " }}")).hasSize(100_000);
            assertThat(render("{{ 0" + " or 0".repeat(100_000) + " or 7 }}")).isEqualTo("7");
            assertThat(render("{{ 'a'" + "|upper".repeat(100_000) + " }}")).isEqualTo("A");
            assertThat(render("{{ 'a'" + ".strip()".repeat(100_000) + " }}")).isEqualTo("a");
            assertThat(render("{{ [" + "1,".repeat(300_000) + "]|length }}")).isEqualTo("300000");
            assertThat(render("{{ x }}".repeat(100_000))).hasSize(100_000);
        });
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "{{ |(|1|)|}}",
                "{{ |[|1|]|}}",
                "{{ |{1:|1|}|}}",
                "{{ |not |1||}}",
                "{{ |- |1||}}",
                "{{ |f(|1|)|}}",
                "{{ |1 if |1||}}",
                "{{ |x[|1|]|}}",
                "{{ |x is in (|1|)|}}",
                "{{ |x is in [|1|]|}}",
                "{{ |x if x else |1||}}",
                "|{% if 1 %}||{% endif %}|",
                "|{% for i in x %}||{% endfor %}|",
                "|{% set x %}||{% endset %}|",
                "|{% macro f() %}||{% endmacro %}|"
            })
    void nestingHasAnEnd(String pattern) {
        String[] parts = pattern.split("\\|", -1);
        String source = parts[0] + parts[1].repeat(20_000) + parts[2] + parts[3].repeat(20_000) + parts[4];

        assertTimeoutPreemptively(MOST, () -> assertThatExceptionOfType(JinjaException.class)
                .isThrownBy(() -> render(source))
                .withMessageContaining("nested too deeply"));
    }

    private static String render(String source) {
        return JinjaTemplate.compile(source).render(variables(), DATE).text();
    }
}
