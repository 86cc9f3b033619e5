"""Answers of a runtime, masked on their way to the client: whole, or in the chunks of a stream.

Each text of each choice is a stream of its own (content, reasoning, the arguments of every tool call). What shows the
text a second time (log-probabilities, token ids) goes out with the text, and not where something of it is masked. Of
the alternatives that log-probabilities show, those are left out that would make something to mask of the text before
them, or are that by themselves.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from governed_api.json_types import Json
from governed_serving.privacy import Covered, TextStream
from governed_serving.server.chat.request import Message, is_long, unused
from governed_serving.server.masking import Masking

__all__ = ["AnswerMask", "Masked"]

Masked = dict[str, dict[str, int]]
"""Where something was masked → entity → how often."""
Path = tuple[str | int, ...]
"""To a text in a choice; a number is the ``index`` of a list's item."""

_PROTOCOL = frozenset(
    ["id", "object", "model", "created", "system_fingerprint", "service_tier", "role", "type", "index", "finish_reason"]
)
"""Fields that the runtime fills in by itself, or that say what an item is."""
_KEY = "(key)"
"""At the end of a path to a key, or to a number."""
_AT_ONCE = frozenset(["name", "stop_reason", _KEY])
"""Texts that come in one piece."""
_SHOWN_AGAIN = ("logprobs", "token_ids")
"""Fields of a choice that hold its text once more, in tokens."""
_BEFORE = 64
"""Characters before an alternative token that are searched with it."""
_PROMPT_AGAIN = frozenset(["prompt_logprobs", "prompt_token_ids"])
"""Fields that hold the prompt in tokens, in which nothing can be masked: left out."""


@dataclass(slots=True)
class _Again:
    """Tokens of a chunk, until its texts are decided: ``spans`` of them as (stream, start, end)."""

    spans: list[tuple[TextStream, int, int]]
    fields: dict[str, Json]


@dataclass(slots=True)
class _Choice:
    """What is held back of one."""

    texts: dict[Path, TextStream] = field(default_factory=dict)
    again: list[_Again] = field(default_factory=list)
    before: str = ""
    """What the log-probabilities so far spell, its end."""


class AnswerMask:
    """Masks one answer. Raises MaskingFailed (failurePolicy Closed); then nothing more may be sent."""

    def __init__(self, masking: Masking) -> None:
        self._masking = masking
        self._choices: dict[int, _Choice] = {}
        self._last: Message = {}
        self._totals: dict[str, Counter[str]] = {}

    @property
    def masked(self) -> Masked:
        """What was masked so far."""
        return {where: dict(counts) for where, counts in self._totals.items()}

    def whole(self, answer: Message) -> Message:
        """``answer``, all of it."""
        out = self._beside(answer)
        out["choices"] = [self._whole(choice, place) for place, choice in enumerate(_choices(answer))]
        return out

    def chunk(self, chunk: Message) -> Message:
        """What of the stream so far is decided with ``chunk``; it keeps its place, empty or not."""
        self._last = chunk
        out = self._beside(chunk)
        if "choices" in chunk:
            out["choices"] = [self._part(choice, place) for place, choice in enumerate(_choices(chunk))]
        return out

    @property
    def holds(self) -> bool:
        """Something is held back."""
        return any(text.released < text.taken for choice in self._choices.values() for text in choice.texts.values())

    def rest(self) -> Message | None:
        """A chunk of what is still held back, when the runtime has said that its answer is over."""
        if not self.holds:
            return None
        chosen: list[Json] = []
        for index, held in self._choices.items():
            choice: dict[str, Json] = {"index": index, "finish_reason": None}
            self._flush(index, held, choice)
            chosen.append(choice)
        return {key: value for key, value in self._last.items() if key != "usage"} | {"choices": chosen}

    def _beside(self, answer: Message) -> Message:
        """All but its choices."""
        kept = {key: value for key, value in answer.items() if key not in _PROMPT_AGAIN and key != "choices"}
        return {key: _mapped(value, (key,), self._at_once) for key, value in kept.items()}

    def _whole(self, choice: dict[str, Json], place: int) -> dict[str, Json]:
        prefix, before = f"choices[{_index(choice, place)}].", sum(map(Counter.total, self._totals.values()))
        texts = {key: value for key, value in choice.items() if key not in _SHOWN_AGAIN and key not in _PROMPT_AGAIN}
        out = {
            key: _mapped(value, (key,), lambda path, text: self._at_once(path, text, prefix))
            for key, value in texts.items()
        }
        again = {key: choice[key] for key in _SHOWN_AGAIN if choice.get(key) is not None}
        clean = before == sum(map(Counter.total, self._totals.values())) and not self._found(_spelled(again))
        again = self._without_alternatives(again, "") if clean else {}
        return out | {key: again.get(key) for key in _SHOWN_AGAIN if key in choice}

    def _found(self, text: str) -> bool:
        return bool(text) and bool(self._masking.covered(text).findings)

    def _without_alternatives(self, again: dict[str, Json], before: str) -> dict[str, Json]:
        """``again``, less the alternatives that show something behind ``before``."""
        logprobs = again.get("logprobs")
        if not isinstance(logprobs, dict):
            return again
        out, texts = dict(logprobs), logprobs.get("tokens")
        for key in ("content", "refusal"):
            if isinstance(items := logprobs.get(key), list):
                told = [item.get("token") if isinstance(item, dict) else None for item in items]
                pairs = zip(items, _befores(told, before), strict=True)
                out[key] = [self._one(item, "top_logprobs", said) for item, said in pairs]
        if isinstance(tops := logprobs.get("top_logprobs"), list):
            told = [*(texts if isinstance(texts, list) else []), *[None] * len(tops)]
            pairs = zip(tops, _befores(told, before), strict=False)
            out["top_logprobs"] = [self._harmless(top, said) for top, said in pairs]
        return again | {"logprobs": out}

    def _one(self, item: Json, key: str, before: str) -> Json:
        return item | {key: self._harmless(item[key], before)} if isinstance(item, dict) and key in item else item

    def _harmless(self, alternatives: Json, before: str) -> Json:
        """Chat's list of objects, or completions' token → logarithm."""
        if isinstance(alternatives, dict):
            return {token: value for token, value in alternatives.items() if not self._shows(token, before)}
        if isinstance(alternatives, list):
            tokens = [one.get("token") if isinstance(one, dict) else None for one in alternatives]
            return [
                one
                for one, token in zip(alternatives, tokens, strict=True)
                if not isinstance(token, str) or not self._shows(token, before)
            ]
        return alternatives

    def _shows(self, token: str, before: str) -> bool:
        """An alternative token is something to mask, by itself or as the end of what is said before it."""
        if not any(map(str.isalnum, token)):
            return False
        findings = self._masking.covered(before + token).findings
        return any(found.end > len(before) for found in findings) or self._found(token)

    def _part(self, choice: dict[str, Json], place: int) -> dict[str, Json]:
        index = _index(choice, place)
        held = self._choices.setdefault(index, _Choice())
        prefix, spans, said = f"choices[{index}].", [], []

        def take(path: Path, text: str) -> str:
            if path[-1] in _AT_ONCE:
                return self._at_once(path, text, prefix)
            if path[-1] in _PROTOCOL:
                return text
            stream = held.texts.setdefault(path, self._masking.stream())
            spans.append((stream, stream.taken, stream.taken + len(text)))
            said.append(text)
            return self._counted(prefix + _label(path), stream.add(text))

        texts = {key: value for key, value in choice.items() if key not in _SHOWN_AGAIN and key not in _PROMPT_AGAIN}
        out = {key: _mapped(value, (key,), take) for key, value in texts.items()}
        again = {key: choice[key] for key in _SHOWN_AGAIN if choice.get(key) is not None}
        if again and any(said) and _spelled(again) in ("", "".join(said)):  # else what is whose can't be told
            held.again.append(_Again(spans, self._without_alternatives(again, held.before)))
            held.before = (held.before + _spelled(again))[-_BEFORE:]
        if choice.get("finish_reason") is not None:
            self._flush(index, held, out)
        self._show_again(held, out)
        return {key: None for key in _SHOWN_AGAIN if key in choice} | out

    def _flush(self, index: int, held: _Choice, out: dict[str, Json]) -> None:
        """Add what is held of a choice to what goes out of it."""
        for path, stream in held.texts.items():
            rest = self._counted(f"choices[{index}].{_label(path)}", stream.flush())
            if rest:
                _append(out, path, rest)
        self._show_again(held, out)

    def _show_again(self, held: _Choice, out: dict[str, Json]) -> None:
        """Tokens whose text is decided, in order."""
        while held.again and all(stream.released >= end for stream, _, end in held.again[0].spans):
            again = held.again.pop(0)
            if not any(stream.hides(start, end) for stream, start, end in again.spans):
                for key, value in again.fields.items():
                    out[key] = _joined(out.get(key), value)

    def _at_once(self, path: Path, text: str, prefix: str = "") -> str:
        return text if path[-1] in _PROTOCOL else self._counted(prefix + _label(path), self._masking.covered(text))

    def _counted(self, where: str, covered: Covered) -> str:
        if covered.findings:
            self._totals.setdefault(where, Counter()).update(covered.counts())
        return covered.text


def _choices(answer: Message) -> Iterator[dict[str, Json]]:
    choices = answer.get("choices")
    return (choice for choice in (choices if isinstance(choices, list) else []) if isinstance(choice, dict))


def _index(choice: dict[str, Json], place: int) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else place


def _label(path: Path) -> str:
    """As people write it; what a chunk calls delta is the message."""
    names = ["message" if part == "delta" else part for part in path if isinstance(part, int) or part.isidentifier()]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in names).removeprefix(".")


def _mapped(value: Json, path: Path, change: Callable[[Path, str], str]) -> Json:
    """``value`` with its texts changed."""
    if isinstance(value, str):
        return change(path, value)
    if isinstance(value, dict):
        out: dict[str, Json] = {}
        for key, item in value.items():
            plain = key.replace("_", "").isalpha()  # as the protocol's are
            out[key if plain else unused(change((*path, _KEY), key), out)] = _mapped(item, (*path, key), change)
        return out
    if isinstance(value, list):
        return [_mapped(item, (*path, _place(item, k)), change) for k, item in enumerate(value)]
    if is_long(value) and path[-1] not in _PROTOCOL:
        text = change((*path, _KEY), str(value))
        return value if text == str(value) else text
    return value


def _place(item: Json, place: int) -> int:
    return _index(item, place) if isinstance(item, dict) else place


def _append(out: dict[str, Json], path: Path, text: str) -> None:
    """Put ``text`` behind what is at ``path``, which is made where there is nothing."""
    here: Json = out
    for part, following in pairwise(path):
        here = _within(here, part, [] if isinstance(following, int) else {})
    assert isinstance(here, dict), "texts are fields of objects"
    before = here.get(str(path[-1]))
    here[str(path[-1])] = (before if isinstance(before, str) else "") + text


def _within(here: Json, part: str | int, fresh: Json) -> Json:
    if isinstance(here, list):
        part_there: Json = next((item for k, item in enumerate(here) if _place(item, k) == part), None)
        if part_there is None:
            part_there = {"index": part}
            here.append(part_there)
        return part_there
    assert isinstance(here, dict), "a path goes through objects and lists"
    if not isinstance(here.get(str(part)), dict | list):
        here[str(part)] = fresh
    return here[str(part)]


def _spelled(again: dict[str, Json]) -> str:
    """The text that log-probabilities spell, chat's or completions'."""
    logprobs = again.get("logprobs")
    if not isinstance(logprobs, dict):
        return ""
    content = logprobs.get("content")
    tokens = (
        [piece.get("token") for piece in content if isinstance(piece, dict)]
        if isinstance(content, list)
        else logprobs.get("tokens")
    )
    return "".join(token for token in tokens if isinstance(token, str)) if isinstance(tokens, list) else ""


def _befores(tokens: Sequence[Json], before: str) -> Iterator[str]:
    """For each token the end of what is spelled before it."""
    for token in tokens:
        yield before
        before = (before + token)[-_BEFORE:] if isinstance(token, str) else before


def _joined(before: Json, more: Json) -> Json:
    """Lists behind each other, in objects too."""
    if isinstance(before, list) and isinstance(more, list):
        return [*before, *more]
    if isinstance(before, dict) and isinstance(more, dict):
        return before | {key: _joined(before.get(key), value) for key, value in more.items()}
    return before if more is None else more
