"""A tokenizer.json that would make gigabytes of a short text, or take for ever, is refused with its place; those that
people use are read as before."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from governed_serving.artefact import MalformedArtefact
from governed_serving.formats import read_text_folder
from governed_serving.importer.text_trial import text_tried
from governed_serving.server.predictors.tokens import opened
from support.text_models import folder, tokenizer

MILLION = 10**6
CLS = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
A, B = ({"Sequence": {"id": name, "type_id": place}} for place, name in enumerate("AB"))


def said(**parts: Any) -> str:
    """A tokenizer of WordPiece with other parts."""
    return json.dumps(json.loads(tokenizer().to_str()) | parts)


def model(**more: Any) -> str:
    return said(model=json.loads(tokenizer().to_str())["model"] | more)


def replace(pattern: Any, content: str) -> dict[str, Any]:
    looked_for = {"String": pattern} if isinstance(pattern, str) else pattern
    return {"type": "Replace", "pattern": looked_for, "content": content}


def several(kind: str, parts: list[Any]) -> dict[str, Any]:
    return {"type": "Sequence", kind: parts}


def regex(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def template(single: list[Any], ids: int = 1) -> dict[str, Any]:
    token = {"id": "[CLS]", "ids": [2] * ids, "tokens": ["[CLS]"] * ids}
    return {"type": "TemplateProcessing", "single": single, "pair": [A, B], "special_tokens": {"[CLS]": token}}


def table(longest: int) -> dict[str, Any]:
    """SentencePiece's, with a text of ``longest`` bytes in it."""
    raw = (1024).to_bytes(4, "little") + bytes(1024) + b"a\0" + b"x" * longest + b"\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(raw).decode()}


def nested(depth: int) -> Any:
    part: dict[str, Any] = {"type": "Lowercase"}
    for _ in range(depth):
        part = several("normalizers", [part])
    return part


def unigram(score: str, token: str = "a") -> str:
    vocab = f'[["<unk>", 0.0], ["{token}", {score}]]'
    return said(model={"type": "Unigram", "unk_id": 0, "vocab": "V"}, added_tokens=[]).replace('"V"', vocab)


def added(count: int, characters: int) -> list[dict[str, Any]]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return [{"id": 1000 + n, "content": f"{n:0{characters}}", **flags} for n in range(count)]


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}
METASPACE = {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": True}
REFUSED: dict[str, tuple[Callable[[], str], str]] = {
    "a character becomes a million": (
        lambda: said(normalizer=replace("a", "a" * MILLION)), r"normalizer\.content: expected at most 32 characters",
    ),
    "ten of one, eight times over": (
        lambda: said(normalizer=several("normalizers", [replace("a", "a" * 10)] * 8)),
        r"normalizer\.normalizers\[0\]: expected replacements that make at most 8 times",
    ),
    "twice, four times over": (
        lambda: said(normalizer=several("normalizers", [replace("a", "aa")] * 4)),
        r"normalizer\.normalizers\[3\]: expected replacements that make at most 8 times",
    ),
    "a replacement of nothing": (
        lambda: said(normalizer=replace("", "xyz")), r"normalizer\.pattern\.String: expected 1 to 32 characters",
    ),
    "a replacement by an expression that matches nothing": (
        lambda: said(normalizer=replace({"Regex": "a*"}, "xyz")), r"normalizer\.pattern\.Regex: expected a regular",
    ),
    "none or one of a character": (
        lambda: said(normalizer=replace({"Regex": "a{0,}"}, "xyz")), r"normalizer\.pattern\.Regex",
    ),
    "a huge prefix": (
        lambda: said(normalizer={"type": "Prepend", "prepend": "a" * MILLION}),
        r"normalizer\.prepend: .* found 1000000",
    ),
    "a table that makes a million of a character": (
        lambda: said(normalizer=table(MILLION)), r"normalizer\.precompiled_charsmap: expected at most 64 bytes",
    ),
    "a table that is none": (
        lambda: said(normalizer={"type": "Precompiled", "precompiled_charsmap": "/////w=="}),
        r"normalizer\.precompiled_charsmap: expected a table of characters in base64",
    ),
    "spaces around each character, again and again": (
        lambda: said(normalizer=several("normalizers", [{"type": "BertNormalizer"}] * 24)),
        r"normalizers\[1\]: expected replacements",
    ),
    "bytes of bytes of bytes": (
        lambda: said(pre_tokenizer=several("pretokenizers", [BYTE_LEVEL] * 22)),
        r"pre_tokenizer\.pretokenizers\[1\]: expected ByteLevel once",
    ),
    "bytes of bytes in two rooms": (
        lambda: said(normalizer={"type": "ByteLevel"}, pre_tokenizer=BYTE_LEVEL),
        r"pre_tokenizer: expected ByteLevel once",
    ),
    "prefixes of prefixes": (
        lambda: said(pre_tokenizer=several("pretokenizers", [METASPACE] * 4)),
        r"pretokenizers\[3\]: expected replacements|pretokenizers\[1\]: expected replacements",
    ),
    "an expression that backtracks": (
        lambda: said(pre_tokenizer=regex("(a+)+$")), r"pre_tokenizer\.pattern\.Regex: .* found '\(a\+\)\+\$'",
    ),
    "one that takes the cube": (lambda: said(pre_tokenizer=regex("a*a*[bc]")), r"pre_tokenizer\.pattern\.Regex"),
    "one within a sequence": (
        lambda: said(pre_tokenizer=several("pretokenizers", [{"type": "Digits"}, regex("(a|a)*b")])),
        r"pre_tokenizer\.pretokenizers\[1\]\.pattern\.Regex",
    ),
    "an expression whose program is huge": (
        lambda: said(decoder=replace({"Regex": "((a{999}){999}){999}"}, "")), r"decoder\.pattern\.Regex",
    ),
    "a deep sequence": (lambda: said(normalizer=nested(60)), r"normalizer: expected at most 24 components"),
    "a deeper one": (
        lambda: said(normalizer="deep").replace('"deep"', '{"a":' * 3000 + "0" + "}" * 3000),
        r"expected what Hugging Face's tokenizers write",
    ),
    "many components": (
        lambda: said(normalizer=several("normalizers", [{"type": "Lowercase"}] * 30)), r"at most 24 components",
    ),
    "a component of another version": (
        lambda: said(normalizer={"type": "Repeat"}), r"normalizer: expected one of .*Lowercase.*, found 'Repeat'",
    ),
    "a component without a kind": (lambda: said(normalizer={}), r"normalizer: expected one of .*, found None"),
    "a component that is none": (lambda: said(normalizer=[1]), r"normalizer: expected an object, found list"),
    "thousands of special tokens": (
        lambda: said(post_processor=template([CLS] * 5000 + [A])), r"post_processor\.single: expected 1 to 32 pieces",
    ),
    "a special token of a million": (
        lambda: said(post_processor=template([CLS, A], ids=MILLION)), r"post_processor\.special_tokens: .*32 ids",
    ),
    "a text thirty times": (
        lambda: said(post_processor=template([A] * 30)), r"post_processor\.single: expected each text once, found 30",
    ),
    "a text nowhere": (lambda: said(post_processor=template([CLS])), r"expected each text once, found 0"),
    "many special tokens of many ids": (
        lambda: said(post_processor=template([CLS] * 20 + [A], ids=30)), r"at most 32 tokens around a text, found 600",
    ),
    "huge added tokens": (
        lambda: said(added_tokens=added(1, MILLION)), r"added_tokens\[0\]\.content: expected 1 to 512 characters",
    ),
    "too many added tokens": (lambda: said(added_tokens=added(20_000, 6)), r"added_tokens: expected at most 16384"),
    "added tokens that are too large together": (
        lambda: said(added_tokens=added(4000, 500)), r"added_tokens: expected at most 1048576 characters in all",
    ),
    "words of any length": (
        lambda: model(max_input_chars_per_word=10**9), r"model\.max_input_chars_per_word: expected at most 200",
    ),
    "a huge prefix of pieces": (
        lambda: model(continuing_subword_prefix="#" * MILLION), r"model\.continuing_subword_prefix: .*32 characters",
    ),
    "chance": (
        lambda: said(model={"type": "BPE", "dropout": 0.5, "vocab": {"a": 0}, "merges": []}), r"model\.dropout: .*none",
    ),
    "no number for a score": (lambda: unigram("NaN"), r"expected what Hugging Face's tokenizers write"),
    "a score without end": (lambda: unigram("-1e999"), r"expected what Hugging Face's tokenizers write"),
    "a long piece": (lambda: unigram("-1.0", "a" * 5000), r"model\.vocab\[1\]: expected at most 512 characters"),
    "another kind of model": (lambda: said(model={"type": "Neural"}), r"model: expected one of BPE, .*found 'Neural'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_take_any_time_or_memory_is_refused_by_its_place(name: str) -> None:
    make, why = REFUSED[name]
    with pytest.raises(MalformedArtefact, match=f"^tokenizer.json: .*{why}|^tokenizer.json: {why}") as refused:
        opened(make().encode())
    assert len(str(refused.value)) < 700


def test_an_import_is_refused_by_the_place_too(tmp_path: Path) -> None:
    place = folder(tmp_path / "m")
    (place / "tokenizer.json").write_text(said(normalizer=replace("a", "a" * MILLION)))
    with pytest.raises(MalformedArtefact, match=r"tokenizer.json: normalizer.content: expected at most 32 characters"):
        text_tried(read_text_folder(place))


@pytest.mark.parametrize("length", [1 << 20, 1 << 40])
def test_what_is_cut_and_padded_is_ours_to_say(length: int) -> None:
    """Nothing of the file's own strategies remains, whatever length they name."""
    padding = {
        "strategy": {"Fixed": length}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "[PAD]",
    }  # fmt: skip
    cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    made = opened(said(padding=padding, truncation=cut).encode())
    assert len(made.encode("the film was good").ids) == 6


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def byte_level(pattern: str | None) -> Tokenizer:
    """As RoBERTa (None: the library's own expression) or a newer one has it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, "he", "Ġt", "Ġthe"]
    made = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, [("h", "e"), ("Ġ", "t"), ("Ġt", "he")]))
    own = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    split = [] if pattern is None else [pre_tokenizers.Split(Regex(pattern), "isolated")]
    made.pre_tokenizer = pre_tokenizers.Sequence([*split, own]) if split else own
    made.post_processor = processors.Sequence(
        [processors.ByteLevel(), processors.RobertaProcessing(("h", 5), ("e", 6))]
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<s>", "</s>"])
    return made


def sentencepiece() -> Tokenizer:
    """As T5 and XLM-R have it."""
    made = Tokenizer(
        models.Unigram([("<unk>", 0.0), ("▁", -2.0), ("▁the", -1.0), *((c, -3.0) for c in "abcdefgh好")], 0)
    )
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return made


def albert() -> Tokenizer:
    made = sentencepiece()
    steps = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(),
             normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " ")]  # fmt: skip
    made.normalizer = normalizers.Sequence(steps)
    return made


def llama() -> Tokenizer:
    made = byte_level(None)
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return made


HONEST: dict[str, Callable[[], Tokenizer]] = {
    "BERT": tokenizer,
    "RoBERTa": lambda: byte_level(None),
    "GPT-2": lambda: byte_level(GPT2),
    "Llama 3": lambda: byte_level(LLAMA3),
    "Llama 2": llama,
    "T5": sentencepiece,
    "ALBERT": albert,
}


@pytest.mark.parametrize("name", HONEST)
def test_what_people_use_is_read_as_the_library_reads_it(name: str) -> None:
    made = HONEST[name]()
    read = opened(made.to_str().encode())
    for text in ("the  film's 123 was good", "好 ﷺ ``é''\n\n", "", "x" * 3000):
        assert read.encode(text).ids == made.encode(text).ids


def test_a_table_of_characters_as_sentencepiece_writes_it_is_read() -> None:
    """One whose trie maps nothing: what it holds is what is judged."""
    opened(said(normalizer=table(33)).encode())
