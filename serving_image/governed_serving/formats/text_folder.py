"""A folder of Hugging Face's kind, with a tokenizer and an ONNX file: which of its files count, and what they say."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from governed_api.json_types import Json
from governed_api.regular_files import read_regular
from governed_serving.artefact import MalformedArtefact, Pooling
from governed_serving.artefact.package import MANIFEST, TOKENIZER
from governed_serving.decoding import decode_json
from governed_serving.formats.description import Node
from governed_serving.formats.onnx_file import check_name, content_of

__all__ = ["TEXT_INPUT", "TextFiles", "TextOutput", "TextSettings", "is_text_folder", "read_text_folder"]

CONFIG = "config.json"
TEXT_INPUT = "text"
"""The input's name in requests."""
MODELS = ("onnx/model.onnx", "model.onnx")
SETTINGS = (
    CONFIG, "tokenizer_config.json", "special_tokens_map.json", "sentence_bert_config.json", "modules.json",
    "1_Pooling/config.json",
)  # fmt: skip
SETTINGS_BYTES, TOKENIZER_BYTES = 1 << 20, 64 << 20
"""What is read of a file of settings, and of a tokenizer: the largest in use, of 256,000 tokens, have 33 MiB."""
DEFAULT_TOKENS, MOST_TOKENS = 512, 8192
"""Of a model that names no length; of any."""
EXPORT = "optimum-cli export onnx --model FOLDER --task {task} OUT"
BEHIND_PADDING = ("roberta", "camembert", "mpnet", "longformer", "xlm-roberta-xl")
"""Parts of the model types whose positions begin behind that of padding (transformers: padding_idx + 1)."""
POOLINGS: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "meanSqrtLen", "pooling_mode_lasttoken": "lastToken",
}  # fmt: skip
NAMED_POOLINGS: dict[str, Pooling] = {
    "cls": "cls",
    "mean": "mean",
    "max": "max",
    "mean_sqrt_len_tokens": "meanSqrtLen",
    "lasttoken": "lastToken",
}
VECTORS, TOKENS = ("sentence_embedding",), ("last_hidden_state", "token_embeddings")
"""What optimum calls a text's vector, and those of its tokens."""
Task = Literal["classification", "regression", "embedding"]


def is_text_folder(folder: Path) -> bool:
    """Whether it is one of Hugging Face's, and no artefact."""
    return (folder / CONFIG).is_file() and not (folder / MANIFEST).exists()


@dataclass(frozen=True)
class TextFiles:
    """``path`` of the graph below the folder, its bytes, those of the tokenizer, and what the others say."""

    path: str
    model: bytes
    tokenizer: bytes
    settings: "TextSettings"


@dataclass(frozen=True)
class TextOutput:
    """The output of the graph that is read, and what it is."""

    name: str
    task: Task
    pooling: Pooling


def read_text_folder(folder: Path, digests: Mapping[str, str] | None = None) -> TextFiles:
    """``digests``: SHA-256 (hex) that a file below ``folder`` must have, by path. Raises MalformedArtefact with what is
    missing and what to do, OSError."""
    model = _model_of(folder)
    if not (folder / TOKENIZER).is_file():
        slow = ", ".join(n for n in ("vocab.txt", "vocab.json", "spiece.model") if (folder / n).is_file())
        raise MalformedArtefact(
            f"{TOKENIZER}: expected it beside {CONFIG}, found {slow or 'none'}; write it with transformers: "
            "AutoTokenizer.from_pretrained(FOLDER, use_fast=True).save_pretrained(FOLDER)"
        )
    contents = {name: _read(folder, name, SETTINGS_BYTES) for name in SETTINGS if (folder / name).is_file()}
    contents[TOKENIZER] = _read(folder, TOKENIZER, TOKENIZER_BYTES)
    contents[model] = content_of(folder / model)
    for name, content in contents.items() if digests is not None else ():
        if (digests or {}).get(name) != hashlib.sha256(content).hexdigest():
            raise MalformedArtefact(
                f"{name}: expected the bytes that were verified, found others: it changed meanwhile"
            )
    return TextFiles(model, contents[model], contents[TOKENIZER], TextSettings(contents))


def _model_of(folder: Path) -> str:
    for name in MODELS:
        if (folder / name).is_file():
            return name
    others = sorted(
        path.relative_to(folder).as_posix() for path in [*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")]
    )
    if len(others) == 1:
        return others[0]
    if others:
        raise MalformedArtefact(
            f"{folder.name}: expected {' or '.join(MODELS)}, found {', '.join(others)[:300]}; rename the one to serve, "
            "or name it alone in storage.files"
        )
    weights = sorted(path.name for path in folder.glob("*.safetensors"))
    raise MalformedArtefact(
        f"{folder.name}: expected an ONNX file ({' or '.join(MODELS)}), found {', '.join(weights)[:200] or 'none'}; "
        f"export it: {EXPORT.format(task='text-classification')} (or feature-extraction), then bring OUT"
    )


def _read(folder: Path, name: str, most: int) -> bytes:
    try:
        return read_regular(folder / name, most, follow=True)
    except OSError as error:
        raise MalformedArtefact(
            f"{name}: expected a readable file of at most {most >> 20} MiB; it {error.strerror}"
        ) from error


class TextSettings:
    """What the folder's files of settings say. Raises MalformedArtefact."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = {
            name: _object(name, files[name]) for name in SETTINGS if name in files and name != "modules.json"
        }
        self._config = self._files[CONFIG]
        self._own = self._files.get("tokenizer_config.json", {})
        self.modules = _modules(files["modules.json"]) if "modules.json" in files else []
        self.model_type = str(self._config.get("model_type") or "")
        self.vocabulary = _whole(self._config.get("vocab_size"))
        self.cut_left = self._own.get("truncation_side") == "left"
        self.padding = _whole(self._config.get("pad_token_id"))

    @property
    def architecture(self) -> str:
        """The first that the configuration names, "" for none."""
        named = self._config.get("architectures")
        return str(named[0]) if isinstance(named, list) and named else ""

    def special(self) -> list[str]:
        """Texts of the special tokens, as transformers lists them, the unknown one excepted."""
        tokens: list[str] = []
        for said in (self._own, self._files.get("special_tokens_map.json", {})):
            for name, value in said.items():
                if name.endswith("_token") and name != "unk_token":
                    tokens.append(_content(value))
                elif name == "additional_special_tokens" and isinstance(value, list):
                    tokens += [_content(token) for token in value]
        return sorted({text for text in tokens if text})

    def unknown(self) -> str:
        """Text of the token that stands for what isn't known; "" for none."""
        said = self._own.get("unk_token") or self._files.get("special_tokens_map.json", {}).get("unk_token")
        return _content(said)

    @property
    def max_tokens(self) -> int:
        """Of a text, special tokens included: the least that any file names."""
        named = [_whole(self._files.get("sentence_bert_config.json", {}).get("max_seq_length"))]
        named.append(_whole(self._own.get("model_max_length")))
        positions = _whole(self._config.get("max_position_embeddings"))
        if positions and any(part in self.model_type for part in BEHIND_PADDING):
            positions -= (self.padding or 0) + 1
        named.append(positions)
        sizes = [size for size in named if size and 0 < size < 1 << 24]  # transformers writes 1e30 for no limit
        return min([*sizes, MOST_TOKENS]) if sizes else DEFAULT_TOKENS

    def output(self, outputs: Sequence[Node]) -> TextOutput:
        """Which output is read. Raises MalformedArtefact for tasks that aren't served."""
        ranks = {node.name: len(node.shape) for node in outputs}
        if "logits" in ranks:
            if ranks["logits"] != 2 or (self.architecture and "SequenceClassification" not in self.architecture):
                raise MalformedArtefact(
                    f"{CONFIG}: expected a model that answers for a text as a whole, found "
                    f"{self.architecture or 'one'} with logits of {ranks['logits']} dimensions, which is not served "
                    "yet; export with --task text-classification or feature-extraction"
                )
            return TextOutput("logits", "regression" if self._is_number else "classification", "")
        for name in VECTORS:
            if ranks.get(name) == 2:
                return TextOutput(name, "embedding", "")
        chosen = next((name for name in TOKENS if ranks.get(name) == 3), None)
        if chosen is None:
            shown = ", ".join(f"{node.name} {node.shape}" for node in outputs)[:300]
            raise MalformedArtefact(
                f"ONNX file: expected an output logits [n, classes], {' or '.join(VECTORS)} [n, width] or "
                f"{' or '.join(TOKENS)} [n, tokens, width], found {shown}; export it with optimum"
            )
        return TextOutput(chosen, "embedding", self.pooling())

    @property
    def _is_number(self) -> bool:
        kind = self._config.get("problem_type")
        return kind == "regression" or (kind is None and len(self.classes(0)) == 1)

    def activation(self, task: Task) -> Literal["", "softmax", "sigmoid"]:
        """What makes probabilities of logits."""
        if task == "classification":
            return "sigmoid" if self._config.get("problem_type") == "multi_label_classification" else "softmax"
        said = self._config.get("sentence_transformers")
        named = said.get("activation_fn") if isinstance(said, dict) else None
        named = named or self._config.get("sbert_ce_default_activation_function")
        return "sigmoid" if task == "regression" and str(named or "").endswith("Sigmoid") else ""

    def classes(self, width: int) -> list[str]:
        """Names of the classes, for ``width`` logits; LABEL_0 … where none are given, as transformers calls them.
        Raises MalformedArtefact."""
        said = self._config.get("id2label")
        if not isinstance(said, dict) or not said:
            return [f"LABEL_{place}" for place in range(width)]
        if set(said) != {str(place) for place in range(len(said))}:
            raise MalformedArtefact(
                f"{CONFIG}: id2label: expected names for 0 to {len(said) - 1}, found {', '.join(said)[:200]}"
            )
        names = [str(said[str(place)]) for place in range(len(said))]
        for name in names:
            check_name(f"{CONFIG}: id2label", name)
        if len(set(names)) < len(names):
            raise MalformedArtefact(f"{CONFIG}: id2label: expected each name once, found {', '.join(names)[:200]}")
        return names

    def pooling(self) -> Pooling:
        """How the vectors of a text's tokens become one; mean where nothing says so, as sentence-transformers does.
        Raises MalformedArtefact."""
        if strange := [kind for kind in self.modules if kind not in ("Transformer", "Pooling", "Normalize")]:
            raise MalformedArtefact(
                f"modules.json: expected Transformer, Pooling and Normalize, found {strange[0]}; export the whole with "
                f"{EXPORT.format(task='feature-extraction')} --library sentence_transformers, which gives "
                f"{VECTORS[0]}"
            )
        said = self._files.get("1_Pooling/config.json")
        if said is None:
            return "mean"
        on = [kind for name, kind in POOLINGS.items() if said.get(name) is True]
        named = said.get("pooling_mode")
        if isinstance(named, str):
            on = [NAMED_POOLINGS[named]] if named in NAMED_POOLINGS else []
        if len(on) != 1:
            raise MalformedArtefact(
                f"1_Pooling/config.json: expected one of {', '.join(POOLINGS)} to be true, found "
                f"{', '.join(on) or 'none that is known'}; export the whole with "
                f"{EXPORT.format(task='feature-extraction')} --library sentence_transformers"
            )
        return on[0]

    @property
    def normalized(self) -> bool:
        """Vectors are divided by their length."""
        return "Normalize" in self.modules


def _object(name: str, data: bytes) -> dict[str, Json]:
    parsed = _json(name, data)
    if not isinstance(parsed, dict):
        raise MalformedArtefact(f"{name}: expected a JSON object, found {type(parsed).__name__}")
    return parsed


def _json(name: str, data: bytes) -> Json:
    try:
        parsed: Json = decode_json(data)
    except msgspec.DecodeError as error:
        raise MalformedArtefact(f"{name}: expected JSON, found: {error}") from error
    return parsed


def _modules(data: bytes) -> list[str]:
    """Kinds of the modules of sentence-transformers, in order."""
    listed = _json("modules.json", data)
    if not isinstance(listed, list) or not all(isinstance(module, dict) for module in listed):
        raise MalformedArtefact("modules.json: expected a list of modules, found something else")
    return [str(module.get("type") or "").rpartition(".")[2] for module in listed if isinstance(module, dict)]


def _content(value: Json) -> str:
    """A token as transformers writes it: its text, or an object with it."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else ""


def _whole(value: Json) -> int | None:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e18 else None
