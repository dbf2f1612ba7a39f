#!/usr/bin/env python3
"""What transformers makes of conversations, for the tests of chat templates.

    scripts/make_chat_goldens.py TEMPLATES OUTPUT
    scripts/make_chat_goldens.py --tools TEMPLATES OUTPUT
    scripts/make_chat_goldens.py --add [--tools] TEMPLATES OUTPUT

TEMPLATES is a folder with chat templates as models carry them (tokenizer.chat_template), one file NAME.jinja each. OUTPUT is
written: gzipped JSON with the conversations and, for every template, the SHA-256 of its source, the special tokens it was
rendered with and what transformers' apply_chat_template makes of every conversation: as a whole, and, of those that end with
the user, with the beginning of an answer. A conversation that the template refuses has null. Pieces of the language follow,
each with what becomes of it. The templates themselves are not kept; a test reads them again where they are at hand
(-Dlorica.chatTemplates=TEMPLATES).

With --add, what OUTPUT has of templates that are not in TEMPLATES stays.

With --tools, the conversations are those in which tools are called, the assistant only thinks, or the assistant begins.
"""

import datetime
import gzip
import hashlib
import json
import pathlib
import sys

import jinja2
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

# strftime_now says this, in Lorica too: training data must not depend on the day
DATE = datetime.datetime(2024, 7, 26, 12, 0, 0)

BOS_EOS = {
    "llama3": ("<|begin_of_text|>", "<|eot_id|>"),
    "gemma": ("<bos>", "<eos>"),
    "phi": ("<s>", "<|endoftext|>"),
    "qwen": (None, "<|im_end|>"),
    "smollm": ("<|im_start|>", "<|im_end|>"),
    "chatml": ("<s>", "<|im_end|>"),
    "olmo": ("<|endoftext|>", "<|endoftext|>"),
    "granite": ("<|end_of_text|>", "<|end_of_text|>"),
    "deepseek": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


CONVERSATIONS = [
    [user("Who is Mr. Collins?"), assistant("A clergyman, and the heir of Longbourn.")],
    [system("You know the novels of Jane Austen."), user("Where is Pemberley?"), assistant("In Derbyshire.")],
    [user("Hello"), assistant("Hi there"), user("Who are you?"), assistant("   An assistant   "), user("Really?")],
    [
        system("Answer in one word."),
        user("The capital of France?"),
        assistant("Paris"),
        user("And of Spain?"),
        assistant("Madrid"),
        user("And of Italy?"),
        assistant("Rome"),
    ],
    [user("  Blanks before and after.  "), assistant("\nA line break before and after.\n")],
    [user("Line one\nLine two\r\nLine three\n\n\nLine six"), assistant("- a\n- b\n\n\ttab")],
    [user("Où est l'été? 你好吗？ Как дела? 🏖️👩‍👩‍👧"), assistant("À la plage — 我很好 — Хорошо. 🎉")],
    [user("Quotes \" ' ` and \\ backslashes \n"), assistant("{\"a\": [1, 2.5, null], 'b': \"<&>\"}")],
    [user("{{ 7 * 7 }} {% if true %}x{% endif %} {# c #}"), assistant("{% for a in b %}{{ a }}{% endfor %}")],
    [user("Say <|im_end|> and </s> and <|eot_id|>."), assistant("[INST] no [/INST] <<SYS>>")],
    [system(""), user("An empty system prompt."), assistant("Indeed.")],
    [system("  A system prompt\nof two lines with blanks. "), user("Yes?"), assistant("Yes.")],
    [user("x" * 500 + " end"), assistant("y " * 300)],
    [user("What is 1 + 1?"), assistant("2")] + [m for n in range(2, 8) for m in (user(f"{n} + {n}?"), assistant(str(2 * n)))],
    [user("One question without an answer")],
    [system("Be brief."), user("One question without an answer")],
    [user("ok"), assistant("")],
    [user(""), assistant("The question was empty.")],
    [user("Think first."), assistant("<think>\nHm. Well.\n</think>\n\nDone."), user("And now?"), assistant("Done again.")],
    [user("\u00a0no-break\u2003space\u200b"), assistant("\u3000ideographic\u3000")],
]

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tells \"the\" weather <of> a place & day.",
            "parameters": {
                "type": "object",
                "properties": {"place": {"type": "string", "description": "Où?"}, "days": {"type": "integer"}},
                "required": ["place"],
            },
        },
    }
]

TOOL_CONVERSATION = [
    user("Will it rain in Bath?"),
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "abcdef123", "type": "function", "function": {"name": "weather", "arguments": {"place": "Bath", "days": 1}}}
        ],
    },
    {"role": "tool", "tool_call_id": "abcdef123", "name": "weather", "content": "{\"rain\": 0.9}"},
    assistant("Most likely."),
]


def call(name, arguments, id="abcdef123"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*tool_calls, **more):
    return {"role": "assistant", **more, "tool_calls": list(tool_calls)}


def answered(content, id="abcdef123"):
    return {"role": "tool", "tool_call_id": id, "name": "weather", "content": content}


BATH = {"place": "Bath", "days": 1}
RAIN = user("Will it rain in Bath?")

# (messages, tools); null and absent content, several calls, other forms of arguments and answers, and who begins
TOOL_CONVERSATIONS = [
    (TOOL_CONVERSATION, TOOLS),
    ([RAIN, calls(call("weather", BATH), content=None), answered("0.9"), assistant("Most likely.")], TOOLS),
    ([RAIN, calls(call("weather", BATH)), answered("0.9"), assistant("Most likely.")], TOOLS),
    ([RAIN, calls(call("weather", BATH), content="Let me look. "), answered("0.9"), assistant("Most likely.")], TOOLS),
    (
        [
            RAIN,
            calls(call("weather", BATH, "aaaaaaaa1"), call("weather", {"place": "Ely"}, "aaaaaaaa2"), content=""),
            answered("0.9", "aaaaaaaa1"),
            answered("0.1", "aaaaaaaa2"),
            assistant("Here, not there."),
        ],
        TOOLS,
    ),
    ([RAIN, calls(call("weather", '{"place": "Bath"}'), content=""), answered("0.9"), assistant("Yes.")], TOOLS),
    ([RAIN, calls(call("weather", BATH), content=None), answered({"rain": 0.9, "wind": [1, None]}), assistant("Yes.")], TOOLS),
    ([RAIN, calls(call("weather", BATH), content=None), answered({"content": "wet"}), assistant("Yes.")], TOOLS),
    ([RAIN, calls(call("weather", {}), content=None), answered("0.9"), assistant("Yes.")], None),
    ([RAIN, calls(content="No calls."), user("Sure?"), assistant("Yes.")], TOOLS),
    ([system("Be brief."), RAIN, calls(call("weather", BATH), content=None), answered("0.9"), assistant("Yes.")], TOOLS),
    ([system("Be brief."), RAIN, assistant("Yes."), user("And then?"), calls(call("weather", BATH), content=None)], TOOLS + TOOLS),
    ([RAIN, {"role": "assistant", "content": "", "reasoning_content": "It is Bath."}], None),
    ([RAIN, {"role": "assistant", "content": "Yes.", "reasoning_content": "It is Bath."}], None),
    ([RAIN, assistant("<think>\nIt is Bath.\n</think>\n\n")], None),
    ([assistant("I speak first."), user("Do you?"), assistant("I do.")], None),
    ([system("Be brief."), assistant("I speak first."), user("Do you?"), assistant("I do.")], None),
    ([RAIN, {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}}], TOOLS),
]

# the language itself, piece by piece; each is rendered with the variables below
SNIPPETS = r"""
{{ 1 + 2 * 3 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 1.5 + 1 }} {{ 1e20 }} {{ 1e-5 }} {{ 10 / 5 }}
{{ 'a' ~ 1 ~ none ~ true }} {{ 'a' + 'b' * 3 }} {{ [1] + [2, 'x'] }} {{ {'a': 1, "b": [true, none]} }} {{ 'it\'s' }} {{ ["it's", '"'] }}
{{ 1 < 2 < 3 }} {{ 1 < 2 > 5 }} {{ 'a' in 'abc' }} {{ 4 not in [1, 2] }} {{ 'role' in m }} {{ not 1 == 2 }} {{ 1 == 1.0 }} {{ true == 1 }}
{{ 'yes' if m else 'no' }} {{ 'x' if false }}| {{ a or 'b' }} {{ 0 or none }} {{ 1 and 'c' }} {{ not a }}
{{ text[1:4] }} {{ text[-3:] }} {{ text[::-1] }} {{ text[::2] }} {{ items[1:] }} {{ items[-1] }} {{ items[5:] }} {{ text[0] }} {{ items[9] }}|
{{ m.role }} {{ m['role'] }} {{ m.none }}| {{ m.get('x', 'y') }} {{ m.items() | list }} {{ m.keys() | list }} {{ m | items | list }}
{{ '  x '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ ' a b  c '.split() }}|{{ 'a,b,c'.split(',', 1) }}|{{ 'a,b,c'.rsplit(',', 1) }}|{{ 'a</think>b'.split('</think>')[-1] }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'they are'.title() }} {{ "they're" | title }} {{ 'ABC'.lower() }} {{ 'aXa'.replace('a', 'b') }} {{ 'abcb'.find('b') }} {{ 'abcb'.count('b') }}
{{ 'prefix-a'.removeprefix('prefix-') }} {{ 'a\nb\r\nc'.splitlines() }} {{ ','.join(['a', 'b']) }} {{ '12'.isdigit() }} {{ 'hello wORLD'.capitalize() }}
{{ items | length }} {{ items | first }} {{ items | last }} {{ items | join('-') }} {{ items | reverse | list }} {{ items | sort(reverse=true) }} {{ items | sum }} {{ items | max }} {{ items | map('string') | list }}
{{ people | map(attribute='name') | join(', ') }} {{ people | selectattr('age', 'gt', 30) | map(attribute='name') | list }} {{ people | rejectattr('old') | list | length }} {{ people | selectattr('name', 'equalto', 'Ann') | list }} {{ people | sort(attribute='age') | map(attribute='name') | list }}
{{ items | select('odd') | list }} {{ items | reject('equalto', 3) | list }} {{ items | unique | list }} {{ 'abc' | list }} {{ ' x ' | trim }}| {{ 'A' | lower }} {{ 3.7 | int }} {{ '42' | int + 1 }} {{ 'x' | int(7) }} {{ '1.5' | float }} {{ 3.456 | round(1) }} {{ -3 | abs }}
{{ x | default('d') }} {{ '' | default('d') }}| {{ '' | default('d', true) }} {{ none | default('d') }} {{ m | tojson }} {{ people | tojson(indent=2) }} {{ 'é<>&"\'' | tojson }} {{ 1.0 | tojson }} {{ [] | tojson(indent=4) }}
{{ x is defined }} {{ m is mapping }} {{ text is string }} {{ items is sequence }} {{ items is iterable }} {{ none is none }} {{ 1 is number }} {{ true is boolean }} {{ 1.0 is float }} {{ 4 is even }} {{ 4 is divisibleby 2 }} {{ x is not defined }} {{ true is true }} {{ 1 is in items }} {{ raise_exception is callable }} {{ text is eq 'x' }}
{% for i in range(3) %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}{% endfor %} {% for i in range(1, 10, 4) %}{{ i }} {% endfor %}{% for i in [] %}x{% else %}none{% endfor %}
{% for k, v in m.items() %}{{ k }}={{ v }};{% endfor %}{% for p in people if p.age > 30 %}{{ p.name }}{{ loop.index0 }}{% endfor %}{% for c in 'ab' %}[{{ c }}]{% endfor %}
{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{{ loop.previtem }}{{ loop.nextitem }} {% endfor %}{{ i }}|
{% set x = 1 %}{% for i in items %}{% set x = i %}{% endfor %}{{ x }} {% set ns = namespace(x=0) %}{% for i in items %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }} {% set a, b = 1, 2 %}{{ b }}{% set t %}block {{ b }}{% endset %}{{ t }}
{% macro f(a, b='B', c=none) %}<{{ a }}{{ b }}{{ c }}>{% endmacro %}{{ f('A') }}{{ f('A', c=3) }}{{ f('A', 'x') | upper }}{% macro w() %}({{ caller() }}){% endmacro %}{% call w() %}in{% endcall %}
{% if false %}a{% elif 1 > 2 %}b{% elif items %}c{% else %}d{% endif %}{% with q = 3 %}{{ q }}{% endwith %}{{ q }}|{% filter upper %}abc{% endfilter %}{% raw %}{{ raw }}{% endraw %}
   {% if true %}
 indented
   {% endif %}
 {{- ' left' }} {{ 'right ' -}}   x {%- if true -%}  y  {%- endif %}  z{# comment #}
{#- gone -#}   w   {%+ if true %} kept{% endif +%}
{{ dict(a=1)['a'] }} {{ {'x': {'y': [1, 2]}}.x.y[1] }} {{ (1, 2) | list }} {{ [1, [2, 3]][1][0] }} {{ 'a' 'b' }} {{ "\u00e9\t|" }} {{ '%' }} {{ items | batch(2) | list }} {{ people | groupby('old') | length }}
{{ loop is defined }} {{ strftime_now('%d %b %Y %B %A %-d') }} {{ m | length }} {{ 'x' is sameas 'x' }} {{ 5 | string + 'x' }} {{ text | replace('l', 'L') | upper }} {{ ['b', 'A'] | sort }} {{ 'a\n\nb' | indent(2) }} {{ m | dictsort }}
{{ undefined_name }}|{{ undefined_name is undefined }} {{ 'é' | upper }} {{ '🏖️ab'[1:] | length }} {{ 1 if undefined_name else 2 }} {{ -5 | abs }} {{ 2 - -2 }} {{ not (true and false) }} {{ 3 in (1, 2, 3) }} {{ '' is string and '' == '' }}
{{ undefined_name.x }}
{{ 'a' + 1 }}
{{ raise_exception('No: ' + text) }}
{{ 1 / 0 }}
{{ items.append(4) }}
{{ nothing() }}
""".strip("\n")

VARIABLES = {
    "text": "hello",
    "items": [1, 2, 3],
    "m": {"role": "user", "content": "é"},
    "people": [{"name": "Ann", "age": 41, "old": True}, {"name": "Bob", "age": 30, "old": False}],
}


def snippets():
    """Single lines, but for the lines from the indented one to the one with w in it, which belong together."""
    lines = SNIPPETS.split("\n")
    first = next(i for i, line in enumerate(lines) if line.startswith("   {% if"))
    last = next(i for i, line in enumerate(lines) if line.startswith("{#- gone"))
    sources = lines[:first] + ["\n".join(lines[first : last + 1])] + lines[last + 1 :]
    results = []
    for source in sources:
        try:
            text = chat_template_utils.render_jinja_template([[]], chat_template=source, **VARIABLES)[0][0]
        except (jinja2.exceptions.TemplateError, TypeError, ZeroDivisionError):
            text = None
        results.append({"source": source, "text": text})
    return results


class FixedDate(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return DATE


def render(tokenizer, conversation, **options):
    try:
        return tokenizer.apply_chat_template(conversation, tokenize=False, **options)
    except (jinja2.exceptions.TemplateError, TypeError, ValueError, IndexError, KeyError, AttributeError):
        return None


def tokenizer_of(name, source):
    bos, eos = next((pair for word, pair in BOS_EOS.items() if word in name.replace("_", "")), ("<s>", "</s>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token=bos, eos_token=eos)
    tokenizer.chat_template = source
    return tokenizer, bos, eos


def write(golden, output, adds):
    if adds:
        with gzip.open(output) as file:
            before = json.load(file)["templates"]
        new = {template["name"] for template in golden["templates"]}
        golden["templates"] += [template for template in before if template["name"] not in new]
        golden["templates"].sort(key=lambda template: template["name"])
    with open(output, "wb") as file:
        with gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="") as zipped:
            zipped.write(json.dumps(golden, ensure_ascii=False, separators=(",", ":")).encode())


def tool_goldens(folder, output, adds):
    templates = []
    for path in sorted(folder.glob("*.jinja")):
        source = path.read_bytes().decode()
        tokenizer, bos, eos = tokenizer_of(path.stem, source)
        texts = [render(tokenizer, messages, tools=tools) for messages, tools in TOOL_CONVERSATIONS]
        templates.append(
            {"name": path.stem, "sha256": hashlib.sha256(source.encode()).hexdigest(), "bos": bos, "eos": eos, "texts": texts}
        )
        print(f"{path.stem}: {sum(text is not None for text in texts)} of {len(texts)} texts")
    conversations = [{"messages": messages, "tools": tools} for messages, tools in TOOL_CONVERSATIONS]
    write({"conversations": conversations, "templates": templates}, output, adds)


def main():
    chat_template_utils.datetime = FixedDate
    options = [argument for argument in sys.argv[1:] if argument.startswith("--")]
    folder, output = (pathlib.Path(argument) for argument in sys.argv[1:] if not argument.startswith("--"))
    adds = "--add" in options
    if "--tools" in options:
        tool_goldens(folder, output, adds)
        return
    templates = []
    for path in sorted(folder.glob("*.jinja")):
        source = path.read_bytes().decode()
        tokenizer, bos, eos = tokenizer_of(path.stem, source)
        texts = [render(tokenizer, conversation) for conversation in CONVERSATIONS]
        prompts = [
            render(tokenizer, conversation, add_generation_prompt=True)
            for conversation in CONVERSATIONS
            if conversation[-1]["role"] == "user"
        ]
        tools = render(tokenizer, TOOL_CONVERSATION, tools=TOOLS)
        # {% generation %} in the first and third conversation: [begin, end) of what the assistant says, in characters
        spans = None
        if "generation %}" in source and "endgeneration" in source:
            _, spans = chat_template_utils.render_jinja_template(
                [CONVERSATIONS[0], CONVERSATIONS[2]], chat_template=source, return_assistant_tokens_mask=True, bos_token=bos, eos_token=eos
            )
        templates.append(
            {
                "name": path.stem,
                "sha256": hashlib.sha256(source.encode()).hexdigest(),
                "bos": bos,
                "eos": eos,
                "texts": texts,
                "prompts": prompts,
                "tools": tools,
                "generation": spans,
            }
        )
        refused = sum(text is None for text in texts)
        print(f"{path.stem}: {len(texts) - refused} texts, {refused} refused, tools {'-' if tools is None else 'yes'}")
    golden = {
        "conversations": CONVERSATIONS,
        "tools": TOOLS,
        "tool_conversation": TOOL_CONVERSATION,
        "templates": templates,
        "variables": VARIABLES,
        "snippets": snippets(),
    }
    write(golden, output, adds)


if __name__ == "__main__":
    main()
