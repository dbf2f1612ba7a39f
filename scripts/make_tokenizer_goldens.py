#!/usr/bin/env python3
"""Writes the tokenizer goldens of native/tests/data/tokenizer: token ids as llama.cpp or Hugging Face's tokenizers give them.

    pip install gguf tokenizers sentencepiece
    scripts/make_tokenizer_goldens.py                     # those of Hugging Face, on the vocabularies that are there
    mvn dependency:copy -Dartifact=de.kherud:llama:4.2.0 -DoutputDirectory=/tmp
    unzip -d /tmp/llama /tmp/llama-4.2.0.jar
    scripts/make_tokenizer_goldens.py --libllama /tmp/llama/de/kherud/llama/Linux/x86_64/libjllama.so      # all

Any shared library with llama.h's functions will do. Three small vocabularies are trained here on the page below and
written next to the goldens, so that the tests have something to run on in a bare clone; training breaks ties at random,
so each run with --libllama may give others. The goldens of real vocabularies are made from ../shared where it is present, and
their tests are skipped where it is not.

Hugging Face is asked where llama.cpp differs from it: it takes A to Z for the only capitals of tekken and gpt-4o, knows no
normalization form C, and of a Hangul syllable sees WordPiece's first letter alone.

Of the tokenizers that scripts/fetch_tokenizers.sh fetches, and of BERT's and Falcon's in ../shared, a thousand difficult texts go into
java/lorica-core/src/test/resources/tokenizers: texts.txt has one a line, NAME.txt in the same line the CRC-32 of its ids (32 bits
each, little-endian, control tokens in the text taken for such) and their number.

A golden file has one case a line: two digits (add_special, parse_special), a tab, the text, a tab, the ids. In the text
\\n, \\t, \\r, \\\\ and \\xNN stand for what they stand for in C.
"""
import argparse
import ctypes
import io
import json
import os
import random
import struct
import tempfile
import unicodedata
import zlib
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = REPOSITORY / "native/tests/data/tokenizer"
SHARED = REPOSITORY.parent / "shared"

PRE_TOKENIZERS = ["default", "gpt-2", "smollm", "starcoder", "falcon", "llama-bpe"]

# The patterns of Hugging Face's tokenizer.json by llama.cpp's names, and whether NFC stands before them.
ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def cased(ending, digits):
    return (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{ending}|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{ending}|{digits}"
            rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{SPACES}")


HUGGING_FACE = {
    "qwen2": (ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + SPACES, True),
    "qwen35": (ENDINGS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + SPACES, True),
    "olmo": (GPT2, True),
    "tekken": (cased("", r"\p{N}"), False),
    "gpt-4o": (cased(ENDINGS + "?", r"\p{N}{1,3}"), False),
}
ADDS_BOS = ["tekken"]
REAL_VOCABULARIES = {
    "llama-spm": SHARED / "data/vocab/llama-spm.gguf",
    "gpt-2": SHARED / "data/vocab/gpt-2.gguf",
    "falcon": SHARED / "data/vocab/falcon.gguf",
    "austen-7m": SHARED / "models/austen-7m-q4_0.gguf",
    "smollm2": SHARED / "models/smollm2-135m-instruct-q4_1.gguf",
}
BERT = SHARED / "data/vocab/bert-bge.gguf"

# What the small vocabularies are trained on. It is short, and rich in what the pre-tokenizers tell apart.
PAGE = """\
A base model stays in its 4-bit blocks while an adapter learns. The adapter is small: two matrices for each layer,
called A and B. Their product is added to the layer's output, and that's all there is to it. It's enough.

They're trained on questions and answers. You'll see the loss fall; if it doesn't, the learning rate isn't right.
I've set it to 0.0002, she'd set it to 0.001, and we're both pleased. WE'RE BOTH PLEASED! DON'T YOU THINK SO?

    def train(model, data):
        for step in range(1000):
            loss = model(data[step])    # forward
            loss.backward()
\t\tprint(step, loss)\r\n
1, 2, 3, 10, 20, 30, 100, 200, 300, 1000, 2000, 3000, 12345, 123456, 1234567, 12:30, 12:45, 2024-05-06, 2024-07-08.
The price is $100.00 + 20% = $120.00; x < y > z, a^b ~ c|d `e` (f) [g] {h} "i" 'j' --- ... !!! ??? ### *** <<< >>>

Straße, naïve café, déjà vu; привет мир, привет всем; 你好世界，你好朋友。こんにちは世界。 안녕하세요 세계. مرحبا بالعالم. 🙂 🙂🙂 🚀🚀🚀
### Instruction:
Who trains the adapter?

### Response:
The adapter is trained by the program, and the program is run by you.


The end.   The very end.\t\tThe end of the end.
"""

TEXTS = [
    "McDonald's iPhoneX HTTPServer XMLHttpRequestÉCOLE ÉcoleÀ ǅungla ʰa Aʰ 你Aa你", "A\u0301B\u0301c \u0301Ab a\u0301\u0327",
    "a// b/\n//\r\n c /d", "WE'RE We'Ll o'Clock 'tis", "\u1100\u1161\u11a8 \u1112\u1161\u11ab", "\u212b \u2126 \ufb2a \u0958 \u0344",
    "ÀÉÎ ÑÕÜ ŸŽ ΑΒΓ άέή АБВ ёй", "ಕಾ ക്ഷ ক্ষ ণি กำ ຳ", "x" * 101 + " y",
    "", " ", "  ", "   ", "\t", "\n", "\n\n", "\n\n\n", "\t\n", " \n", "\n ", "\r\n", "\r\n\r\n", "The adapter",
    " The adapter", "  The adapter", "   The adapter", "The  adapter", "The adapter ", "The adapter  ",
    "The end.\n    The end.", "The end.\n\n\n\nThe end.", "The end. \n \n The end.", "a\t\tb\t c", "\n =", " (",
    "x \n", "I'm you're they've he'd she'll it's don't", "I'M YOU'RE THEY'VE HE'D SHE'LL IT'S DON'T",
    "'s't're've'm'll'd", "' s 'S '", "don\u2019t", "x's's", "'\u017f '\u212a", "llamas' eras", "'' ''s", "1", "12",
    "123", "1234", "12345", "123456", "1234567", " 1 12 123 1234", "3.14", "1,234,567.89", "a1b22c333d4444",
    "½ ² ③ Ⅷ ٣٤٥ १२३४ 12३४5", "2024-05-06T12:30", "!!!!!!", "...", "?!?!", "$100.00+20%=<tag>^~|`x`",
    "a_b-c/d\\e[f]{g}(h)@i#j&k*l", "—–…“”‘’«»", "(a) (b)", "a,b, c", "def f(x):\n\treturn x ** 2  # square\n\n\n",
    "https://example.com/?q=1&r=a%20b#here", "Straße, naïve café", "e\u0301 a\u0308\u0323 \u0301x",
    "İstanbul ISTANBUL ß ẞ ﬁ Å Ǆ Ω", "ｆｕｌｌ　ｗｉｄｔｈ　１２３", "привет мир", "مرحبا بالعالم שלום עולם สวัสดีชาวโลก नमस्ते",
    "កាន់តែពិសេស", "Cửa Việt", "你好世界，我想在apple工作1314天～", "こんにちは世界。", "가각힣 ᄀ 안녕하세요", "𝔘𝔫𝔦 𝟙𝟚𝟛 𐐷", "🙂", "🙂🚀 x",
    "😶\u200d🌫️ 🏳️\u200d🌈🇩🇪", "🚀 (normal) ✅ (one of its own)", "\u00a0x\u2003y\u3000z\u0085w\u1680v\u2028u\u2029t",
    "a\u00a0\u00a0\u00a0b", "\x00a\x00\x00b", "\x1c\x1d\x1e\x1f", "a\u200bb\ufeffc", "\ue000\U000e0001",
    "\u0378\u0379", "\ufffd\ufffe\uffff", "\U0010ffff", "\u2581\u2581x \u2581y", "<0x0A><0xFF>",
    "<|endoftext|> <|im_start|>user\nhi<|im_end|>\n<s>x</s> <unk> [CLS] a [SEP] [MASK]", "<s><s></s></s>",
    " <s> a </s> b", "<|im_start|><|im_end|>", "<|im_start|  im_end|>", "<tool><tool_call> x<tool>y",
    ">>TITLE<<x>>ABSTRACT<<", "#\n### Instruction:\nWho trains it?\n\n### Response:\nYou do.", " " * 50,
    " " * 49 + "x", "\n" * 30, "a" * 90, "x " * 20,
]
SPECIAL_MARKS = ("<|", "<s>", "<tool", ">>T", "[CLS]")
SPECIAL_TEXTS = [text for text in TEXTS if any(mark in text for mark in SPECIAL_MARKS)] + ["", "The end."]


class LlamaVocabulary:
    """A vocabulary as llama.cpp loads it, through its C interface."""

    class ModelParams(ctypes.Structure):
        _fields_ = [("bytes", ctypes.c_uint8 * 72)]

    def __init__(self, library, path):
        self.library = library
        library.llama_model_default_params.restype = self.ModelParams
        library.llama_model_load_from_file.restype = ctypes.c_void_p
        library.llama_model_load_from_file.argtypes = [ctypes.c_char_p, self.ModelParams]
        library.llama_model_get_vocab.restype = ctypes.c_void_p
        library.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
        params = library.llama_model_default_params()
        # Behind the pointers stand the flags: vocab_only, false by default, then use_mmap, true.
        vocab_only = bytes(params.bytes).index(b"\0\1", 48)
        params.bytes[vocab_only] = 1
        model = library.llama_model_load_from_file(str(path).encode(), params)
        if not model:
            raise SystemExit(f"llama.cpp does not load {path}")
        self.vocabulary = ctypes.c_void_p(library.llama_model_get_vocab(model))

    def encode(self, text, add_special, parse_special):
        data = text.encode()
        capacity = len(data) + 8
        ids = (ctypes.c_int32 * capacity)()
        n = self.library.llama_tokenize(self.vocabulary, data, len(data), ids, capacity,
                                        ctypes.c_bool(add_special), ctypes.c_bool(parse_special))
        assert n >= 0, text
        return ids[:n]


def write_gguf(path, keys):
    from gguf import GGUFWriter
    writer = GGUFWriter(path, "llama")
    for key, value in keys.items():
        key = "tokenizer.ggml." + key
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_string(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def bpe_keys():
    """Byte-level BPE trained without a pre-tokenizer: its merges cross every border that a pre-tokenizer may draw."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool>", "<tool_call>", "<unused>"]
    tokenizer.train_from_iterator(PAGE.split("\n\n") * 2 + PAGE.split("\n") + TEXTS * 2, trainers.BpeTrainer(
        vocab_size=1000, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=8, show_progress=False))
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    types = [CONTROL] * 3 + [USER_DEFINED] * 2 + [UNUSED] + [NORMAL] * (len(tokens) - len(specials))
    return {"model": "gpt2", "pre": "gpt-2", "tokens": tokens, "token_type": types,
            "merges": [" ".join(merge) for merge in model["merges"]],
            "bos_token_id": 0, "eos_token_id": 2, "padding_token_id": 0}


def spm_keys():
    import sentencepiece
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(PAGE.split("\n") * 2), model_writer=model, model_type="bpe", vocab_size=800,
        byte_fallback=True, character_coverage=0.98, user_defined_symbols=["<tool>", "<tool_call>"],
        normalization_rule_name="identity",
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, split_digits=True, minloglevel=2)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(processor.get_piece_size())

    def kind(i):
        if processor.is_unknown(i):
            return UNKNOWN
        if processor.is_control(i):
            return CONTROL
        if processor.is_byte(i):
            return BYTE
        return USER_DEFINED if processor.id_to_piece(i).startswith("<tool") else NORMAL

    return {"model": "llama", "tokens": [processor.id_to_piece(i) for i in ids],
            "scores": [processor.get_score(i) for i in ids], "token_type": [kind(i) for i in ids],
            "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}


def wordpiece_keys():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(PAGE.split("\n"), trainers.WordPieceTrainer(
        vocab_size=600, special_tokens=specials, show_progress=False))
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.get)
    words = [token[2:] if token.startswith("##") else "\u2581" + token for token in tokens[len(specials):]]
    return {"model": "bert", "tokens": specials + words,
            "token_type": [CONTROL] * len(specials) + [NORMAL] * len(words),
            "padding_token_id": 0, "unknown_token_id": 1, "cls_token_id": 2, "bos_token_id": 2, "seperator_token_id": 3,
            "mask_token_id": 4}


def escape(text):
    out = ""
    for c in text:
        if c in "\\\n\t\r":
            out += {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}[c]
        elif c.isprintable():
            out += c
        else:
            out += "".join(f"\\x{byte:02x}" for byte in c.encode())
    return out


class HuggingFaceVocabulary:
    """The vocabulary of a GGUF file in Hugging Face's tokenizers: byte-level BPE split by `pre`, or BERT's WordPiece."""

    def __init__(self, path, pre=None):
        from gguf import GGUFReader
        fields = GGUFReader(path).fields
        read = {key: fields["tokenizer.ggml." + key].contents() for key in ("tokens", "token_type")}
        self.tokens = read["tokens"]
        merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()] if pre else None
        self.by_parse_special = {}
        for parse_special in (False, True):
            cut_out = [USER_DEFINED, CONTROL] if parse_special else [USER_DEFINED]
            tokenizer = self.byte_level(merges, pre) if pre else self.word_piece(read["token_type"])
            tokenizer.add_tokens([AddedToken(token, normalized=False) for token, kind
                                  in zip(self.tokens, read["token_type"]) if kind in cut_out])
            self.by_parse_special[parse_special] = tokenizer
        self.before, self.after = [], []
        if not pre:
            self.before = [self.tokens.index("[CLS]")]
            self.after = [self.tokens.index("[SEP]")]
        elif pre in ADDS_BOS:
            self.before = [int(fields["tokenizer.ggml.bos_token_id"].contents())]

    def byte_level(self, merges, pre):
        pattern, composes = HUGGING_FACE[pre]
        tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(self.tokens)}, merges=merges,
                                         ignore_merges=pre in ADDS_BOS))
        if composes:
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        return tokenizer

    def word_piece(self, types):
        def spelling(token, kind):
            return token if kind == CONTROL else token[1:] if token.startswith("\u2581") else "##" + token

        vocabulary = {spelling(token, kind): i for i, (token, kind) in enumerate(zip(self.tokens, types))}
        tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return tokenizer

    def encode(self, text, add_special, parse_special):
        ids = self.by_parse_special[parse_special].encode(text).ids
        return self.before + ids + self.after if add_special else ids


def write_golden(name, vocabulary):
    cases = [(False, False, text) for text in TEXTS] + [(True, True, text) for text in SPECIAL_TEXTS]
    lines = [f"{add:d}{parse:d}\t{escape(text)}\t{' '.join(map(str, vocabulary.encode(text, add, parse)))}\n"
             for add, parse, text in cases]
    (DATA / f"{name}.golden").write_text("".join(lines))


def write_goldens_of_llama_cpp(library):
    for name, keys in ("spm-small", spm_keys()), ("wordpiece-small", wordpiece_keys()), ("bpe-small", bpe_keys()):
        write_gguf(DATA / f"{name}.gguf", keys)
    write_golden("spm-small", LlamaVocabulary(library, DATA / "spm-small.gguf"))
    with tempfile.TemporaryDirectory() as folder:
        for pre in PRE_TOKENIZERS:
            path = Path(folder) / "vocabulary.gguf"
            write_gguf(path, keys | {"pre": pre})
            write_golden(f"bpe-small.{pre}", LlamaVocabulary(library, path))
    for name, path in REAL_VOCABULARIES.items():
        if path.exists():
            write_golden(name, LlamaVocabulary(library, path))


def write_goldens_of_hugging_face():
    for pre in HUGGING_FACE:
        write_golden(f"bpe-small.{pre}", HuggingFaceVocabulary(DATA / "bpe-small.gguf", pre))
    write_golden("wordpiece-small", HuggingFaceVocabulary(DATA / "wordpiece-small.gguf"))
    if BERT.exists():
        write_golden("bert-bge", HuggingFaceVocabulary(BERT))


TOKENIZERS = Path(os.environ.get("LORICA_TOKENIZERS", Path.home() / ".cache/lorica/tokenizers"))
TOKENIZER_FOLDERS = {path.name: path for path in sorted(TOKENIZERS.glob("*"))} | {
    "minilm": SHARED / "models/minilm-l6-hf", "austen-7m": SHARED / "models/austen-7m-hf"}
JAVA_DATA = REPOSITORY / "java/lorica-core/src/test/resources/tokenizers"

WORDS = ["the", "The", "THE", "don't", "WE'VE", "o'Clock", "iPhoneX", "HTTPServer", "naïve", "ÉCOLE", "Straße", "привет", "МИР", "你好", "世界",
         "こんにちは", "안녕하세요", "سلام", "שלום", "नमस्ते", "สวัสดี", "1234567", "3.14", "½", "٣٤٥", "def", "return", "__init__", "x+=1;",
         "e\u0301", "\u1112\u1161\u11ab", "🙂", "👩\u200d🚀", "🇩🇪", "ﬁ", "Ǆ", "ǅ", "İ", "ß", "\u00a0", "\u200b", "---", "...", "!?", "//", "\\n", "<br/>",
         "'s", "'S", "'ll", "'T", "\u2019s", "<|im_start|>", "<|endoftext|>", "<s>", "</s>", "<bos>", "[INST]", "[CLS]", "<unk>"]
SPACES_BETWEEN = ["", "", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n", "\n ", "\u3000", "\u2003", "\u0085"]
# Scripts, marks, numbers, symbols, presentation forms, letters outside the basic plane.
BLOCKS = [(0x20, 0x7F), (0xA0, 0x250), (0x250, 0x300), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE80), (0xE80, 0x1100),
          (0x1100, 0x1200), (0x1E00, 0x2000), (0x2000, 0x2070), (0x2070, 0x2C00), (0x3000, 0x3400), (0x4E00, 0x5000), (0xA640, 0xA800),
          (0xAC00, 0xAD00), (0xF900, 0xFB50), (0xFB50, 0xFE00), (0xFE70, 0xFFF0), (0x10000, 0x10500), (0x1D100, 0x1D800), (0x1F300, 0x1F700)]


def difficult_texts():
    rng = random.Random(21)

    def character():
        while True:
            code = rng.randrange(*rng.choice(BLOCKS))
            if unicodedata.category(chr(code)) not in ("Cn", "Cs"):
                return chr(code)

    texts = list(dict.fromkeys(text for text in TEXTS if text))
    while len(texts) < 1000:
        parts = []
        for _ in range(rng.randint(1, 14)):
            parts.append(rng.choice(WORDS) if rng.random() < 0.6 else "".join(character() for _ in range(rng.randint(1, 6))))
            parts.append(rng.choice(SPACES_BETWEEN) * rng.choice([1, 1, 1, 2, 3]))
        # A punctuation mark since Unicode 12; the WordPiece of Hugging Face's library has older tables.
        texts.append("".join(parts).replace("\u0c77", ""))
    return texts


def falcon():
    """Its vocabulary from ../shared, with the pre-tokenizer of its tokenizer.json."""
    from gguf import GGUFReader
    fields = GGUFReader(REAL_VOCABULARIES["falcon"]).fields
    tokens, kinds, merges = (fields["tokenizer.ggml." + key].contents() for key in ("tokens", "token_type", "merges"))
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[tuple(merge.split(" ")) for merge in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation(behavior="contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), behavior="isolated")])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token, kind in zip(tokens, kinds) if kind in (USER_DEFINED, CONTROL)])
    return tokenizer


def write_difficult_texts():
    JAVA_DATA.mkdir(parents=True, exist_ok=True)
    texts = difficult_texts()
    (JAVA_DATA / "texts.txt").write_text("".join(escape(text) + "\n" for text in texts))
    tokenizers = {name: Tokenizer.from_file(str(folder / "tokenizer.json"))
                  for name, folder in TOKENIZER_FOLDERS.items() if (folder / "tokenizer.json").exists()}
    if REAL_VOCABULARIES["falcon"].exists():
        tokenizers["falcon"] = falcon()
    for name, tokenizer in tokenizers.items():
        tokenizer.no_truncation()
        tokenizer.no_padding()
        lines = []
        for text in texts:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            lines.append(f"{zlib.crc32(struct.pack(f'<{len(ids)}I', *ids)):08x} {len(ids)}\n")
        (JAVA_DATA / f"{name}.txt").write_text("".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libllama", help="shared library with llama.h's functions")
    arguments = parser.parse_args()
    if arguments.libllama:
        write_goldens_of_llama_cpp(ctypes.CDLL(arguments.libllama))
    write_goldens_of_hugging_face()
    write_difficult_texts()


if __name__ == "__main__":
    main()
