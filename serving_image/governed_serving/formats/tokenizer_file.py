"""What a ``tokenizer.json`` may ask for: the components that people use, within bounds that keep a text's tokens few.

A file can make gigabytes of a short text (Replace "a" by a million of them), or take for ever (regular expressions that
backtrack; ByteLevel, which doubles what isn't ASCII, many times). So what may stand in it is listed here, component by
component; anything else is refused with its place in the file.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NoReturn

import msgspec

from governed_api.json_types import Json
from governed_api.printable import printable
from governed_serving.artefact import MalformedArtefact
from governed_serving.decoding import decode_json

__all__ = ["check_tokenizer"]

COMPONENTS = 24
"""Of each kind, in sequences and in those within them."""
WORDS = 32
"""Characters that a component puts into a text: a prefix, a suffix, a replacement."""
GROWTH = 8.0
"""What all replacements together may make of a text, as a multiple of its characters."""
PIECE_BYTES = 64
"""What a table of characters (SentencePiece's) may make of one; of NFKC's, the longest has 33."""
WORD_CHARACTERS = 200
"""Of a word that WordPiece looks for pieces in: it takes their square. BERT's have 100."""
TOKEN_CHARACTERS = 512
"""Of a token: Unigram looks for one of each length at each place."""
ADDED, ADDED_CHARACTERS = 1 << 14, 1 << 20
"""Tokens beside the vocabulary, and their characters in all."""
SPECIAL = 32
"""Tokens that are put around a text."""

_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
KNOWN_PATTERNS = frozenset(
    {
        rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+",  # GPT-2
        rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{_REST}",  # GPT-4, Llama 3
        rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{_REST}",  # Qwen 2
        rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}{_REST}",  # Qwen 3.5
        rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+(?i:{_CONTRACTIONS})?"
        rf"|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*(?i:{_CONTRACTIONS})?"
        rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",  # o200k
        rf"{_CONTRACTIONS}|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+",  # CLIP
        r" ?[^(\s|[.,!?…。，、।۔،])]+",  # BLOOM
    }
)
"""Regular expressions in use that take time in proportion to a text. No rule tells them from those that don't."""
_CHARACTER = r"(?:\\[sSdDwWnrt.\\]|\\p\{\w{1,20}\}|[^\\\[\](){}|*+?^$.])"
_SIMPLE = re.compile(rf"(?:{_CHARACTER}|\[\^?{_CHARACTER}{{1,40}}\])(?:\+|\{{[1-9],?\d?\}})?")
"""One character, or one of a set, once or several times: nothing to go back to."""

_Object = Mapping[str, Json]


class _File(msgspec.Struct):
    """The parts of the file that say what is done; ``model`` is read by its kind."""

    model: msgspec.Raw
    added_tokens: msgspec.Raw = msgspec.Raw(b"[]")
    normalizer: msgspec.Raw = msgspec.Raw(b"null")
    pre_tokenizer: msgspec.Raw = msgspec.Raw(b"null")
    post_processor: msgspec.Raw = msgspec.Raw(b"null")
    decoder: msgspec.Raw = msgspec.Raw(b"null")


class _Model(msgspec.Struct):
    """Of the vocabulary nothing is read here: it may have a quarter of a million words."""

    type: str = ""
    vocab: msgspec.Raw = msgspec.Raw(b"{}")
    dropout: float | None = None
    max_input_chars_per_word: int = 100
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None


def check_tokenizer(data: bytes) -> None:
    """Raises MalformedArtefact with the place of what isn't allowed, and what is."""
    try:
        file = decode_json(data, type=_File)
        _check_model(decode_json(bytes(file.model), type=_Model))
        _check_added(decode_json(bytes(file.added_tokens)))
        _check_components(
            ("normalizer", decode_json(bytes(file.normalizer)), "normalizers", _NORMALIZERS),
            ("pre_tokenizer", decode_json(bytes(file.pre_tokenizer)), "pretokenizers", _PRE_TOKENIZERS),
            ("post_processor", decode_json(bytes(file.post_processor)), "processors", _PROCESSORS),
            ("decoder", decode_json(bytes(file.decoder)), "decoders", _DECODERS),
        )
    except msgspec.DecodeError as error:
        raise MalformedArtefact(
            f"tokenizer.json: expected what Hugging Face's tokenizers write, found: {error}"
        ) from error


def _check_components(*rooms: tuple[str, Json, str, "_Checks"]) -> None:
    """Each: where it stands, what stands there, how a sequence calls its parts, and what is allowed."""
    growth, doubled = 1.0, 0
    for place, said, within, allowed in rooms:
        for at, part in _parts(place, said, within):
            kind = part.get("type")
            if not isinstance(kind, str) or kind not in allowed:
                _refuse(at, f"one of {', '.join(allowed)}", repr(kind))
            growth *= allowed[kind](at, part)
            doubled += kind == "ByteLevel" and place in ("normalizer", "pre_tokenizer")
            if growth > GROWTH:
                _refuse(at, f"replacements that make at most {GROWTH:g} times its characters of a text", "more")
            if doubled > 1:
                _refuse(at, "ByteLevel once", "it again")


def _refuse(place: str, expected: str, found: str) -> NoReturn:
    raise MalformedArtefact(
        printable(f"tokenizer.json: {place}: expected {expected}, found {found[:80]}: a short text could take any time "
        "and memory; serve the model by a predictor.model.runtime, or export a tokenizer without it")
    )  # fmt: skip


def _parts(place: str, said: Json, within: str) -> Iterator[tuple[str, _Object]]:
    """(place, component) of what ``said`` lists, sequences taken apart."""
    left: list[tuple[str, Json]] = [(place, said)] if said is not None else []
    count = 0
    while left:
        at, part = left.pop()
        if not isinstance(part, dict):
            _refuse(at, "an object", type(part).__name__)
        listed = part.get(within)
        if part.get("type") == "Sequence" and isinstance(listed, list):
            left += [(f"{at}.{within}[{k}]", inner) for k, inner in enumerate(listed[: COMPONENTS + 1])][::-1]
            count += 1
        else:
            yield at, part
            count += 1
        if count > COMPONENTS or len(left) > COMPONENTS:
            _refuse(place, f"at most {COMPONENTS} components", "more")


def _check_model(model: _Model) -> None:
    """Raises DecodeError for a vocabulary of another form."""
    unigram = model.type == "Unigram" or (not model.type and bytes(model.vocab).startswith(b"["))
    if model.type not in ("", "BPE", "Unigram", "WordLevel", "WordPiece"):
        _refuse("model", "one of BPE, Unigram, WordLevel, WordPiece", repr(model.type))
    if model.dropout:
        _refuse("model.dropout", "none: the same text has the same tokens", f"{model.dropout:g}")
    if model.max_input_chars_per_word > WORD_CHARACTERS:
        _refuse("model.max_input_chars_per_word", f"at most {WORD_CHARACTERS}", str(model.max_input_chars_per_word))
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        _short(f"model.{name}", getattr(model, name))
    if unigram:
        for place, (token, _) in enumerate(decode_json(bytes(model.vocab), type=list[tuple[str, float]])):
            if len(token) > TOKEN_CHARACTERS:
                _refuse(f"model.vocab[{place}]", f"at most {TOKEN_CHARACTERS} characters", str(len(token)))


def _check_added(tokens: Json) -> None:
    if not isinstance(tokens, list):
        _refuse("added_tokens", "a list", type(tokens).__name__)
    if len(tokens) > ADDED:
        _refuse("added_tokens", f"at most {ADDED}", str(len(tokens)))
    size = 0
    for place, token in enumerate(tokens):
        content = token.get("content") if isinstance(token, dict) else None
        if not isinstance(content, str) or not 0 < len(content) <= TOKEN_CHARACTERS:
            _refuse(f"added_tokens[{place}].content", f"1 to {TOKEN_CHARACTERS} characters", "others")
        size += len(content)
    if size > ADDED_CHARACTERS:
        _refuse("added_tokens", f"at most {ADDED_CHARACTERS} characters in all", str(size))


def _short(place: str, text: Json) -> str:
    if text is not None and not (isinstance(text, str) and len(text) <= WORDS):
        _refuse(place, f"at most {WORDS} characters", str(len(text)) if isinstance(text, str) else "something else")
    return text or ""


def _pattern(place: str, said: Json) -> str | None:
    """The literal text that is looked for, None for a regular expression."""
    literal = said.get("String") if isinstance(said, dict) and len(said) == 1 else None
    if isinstance(literal, str):
        if not 0 < len(literal) <= WORDS:
            _refuse(f"{place}.String", f"1 to {WORDS} characters", str(len(literal)))
        return literal
    regex = said.get("Regex") if isinstance(said, dict) and len(said) == 1 else None
    if not isinstance(regex, str) or not (regex in KNOWN_PATTERNS or _SIMPLE.fullmatch(regex)):
        _refuse(
            f"{place}.Regex",
            "a regular expression of a known tokenizer (GPT-2, GPT-4, o200k, Qwen, CLIP, BLOOM), or one character or "
            "set of them, once or several times",
            repr(regex),
        )
    return None


def _any(_place: str, _part: _Object) -> float:
    return 1.0


def _spaced(_place: str, _part: _Object) -> float:
    """Spaces around each Chinese character."""
    return 3.0


def _prefixed(_place: str, _part: _Object) -> float:
    """A character before each word."""
    return 2.0


def _replace(place: str, part: _Object) -> float:
    literal, content = (
        _pattern(f"{place}.pattern", part.get("pattern")),
        _short(f"{place}.content", part.get("content")),
    )
    return max(1.0, len(content) / len(literal or "x"))


def _prepend(place: str, part: _Object) -> float:
    _short(f"{place}.prepend", part.get("prepend"))
    return 1.0


def _split(place: str, part: _Object) -> float:
    _pattern(f"{place}.pattern", part.get("pattern"))
    return 1.0


def _precompiled(place: str, part: _Object) -> float:
    """SentencePiece's: the length of a trie (32 bits, little-endian), it, then texts that end with NUL."""
    said, at = part.get("precompiled_charsmap"), f"{place}.precompiled_charsmap"
    try:
        table = base64.b64decode(said, validate=True) if isinstance(said, str) else b""
    except binascii.Error:
        table = b""
    start = 4 + int.from_bytes(table[:4], "little")
    if len(table) < 4 or start > len(table):
        _refuse(at, "a table of characters in base64, as SentencePiece writes it", "something else")
    longest = max(map(len, table[start:].split(b"\0")))
    if longest > PIECE_BYTES:
        _refuse(at, f"at most {PIECE_BYTES} bytes for a character", str(longest))
    return 1.0


def _pair(place: str, part: _Object) -> float:
    for name in ("sep", "cls"):
        said = part.get(name)
        _short(f"{place}.{name}", said[0] if isinstance(said, list) and said else "")
    return 1.0


def _template(place: str, part: _Object) -> float:
    """One text, and few tokens around it."""
    known, added = part.get("special_tokens"), 0
    for name in ("single", "pair"):
        pieces = part.get(name)
        if not isinstance(pieces, list) or not 0 < len(pieces) <= SPECIAL:
            _refuse(f"{place}.{name}", f"1 to {SPECIAL} pieces", "others")
        texts = sum(isinstance(piece, dict) and "Sequence" in piece for piece in pieces)
        if texts > 2 or (name == "single" and texts != 1):
            _refuse(f"{place}.{name}", "each text once", f"{texts} of them")
        for piece in pieces:
            token = piece.get("SpecialToken") if isinstance(piece, dict) else None
            if isinstance(token, dict) and isinstance(known, dict):
                added += _ids(f"{place}.special_tokens", known.get(str(token.get("id"))))
    if added > 2 * SPECIAL:
        _refuse(place, f"at most {SPECIAL} tokens around a text", str(added))
    return 1.0


def _ids(place: str, said: Json) -> int:
    ids = said.get("ids") if isinstance(said, dict) else None
    if not isinstance(ids, list) or len(ids) > SPECIAL:
        _refuse(place, f"at most {SPECIAL} ids of a token", "others")
    return len(ids)


_Checks = Mapping[str, Callable[[str, _Object], float]]
_NORMALIZERS: _Checks = MappingProxyType(
    dict.fromkeys(("ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Strip", "StripAccents"), _any)
    | {"BertNormalizer": _spaced, "Precompiled": _precompiled, "Prepend": _prepend, "Replace": _replace}
)
_PRE_TOKENIZERS: _Checks = MappingProxyType(
    dict.fromkeys(
        (
            "BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "Punctuation", "UnicodeScripts",
            "Whitespace", "WhitespaceSplit",
        ),
        _any,
    )
    | {"Metaspace": _prefixed, "Split": _split}
)  # fmt: skip
_PROCESSORS: _Checks = MappingProxyType(
    {"BertProcessing": _pair, "ByteLevel": _any, "RobertaProcessing": _pair, "TemplateProcessing": _template}
)
_DECODERS: _Checks = MappingProxyType(
    dict.fromkeys(("BPEDecoder", "ByteFallback", "ByteLevel", "CTC", "Fuse", "Metaspace", "Strip", "WordPiece"), _any)
    | {"Replace": _replace}
)
"""Nothing is decoded, but their regular expressions are read."""
