"""Folders with a tokenizer as people bring them, made on the spot: config.json, tokenizer.json and an ONNX file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import numpy_helper, parser
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

__all__ = ["LABELS", "embedder", "folder", "graph", "tokenizer"]

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LABELS = ["bad", "good", "so so"]
WORDS = [
    "good",
    "bad",
    "so",
    "film",
    "food",
    "the",
    "a",
    "was",
    "is",
    "not",
    "very",
    "people",
    "we",
    "it",
    "##s",
    "##ly",
]


def tokenizer(words: list[str] = WORDS) -> Tokenizer:
    """WordPiece over a few words and all ASCII letters."""
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    known = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{c}" for c in letters if c.isalnum()),
        *words,
    ]
    vocabulary = {word: place for place, word in enumerate(dict.fromkeys(known))}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)]
    )
    made.add_special_tokens(SPECIAL)
    return made


def graph(kind: str, labels: int = 3, width: int = 32, seed: int = 0) -> bytes:
    """A transformer of one layer with random weights: logits, last_hidden_state or sentence_embedding. ``batched``
    mixes rows, as a graph may that its exporter never asked about two texts."""
    rng = np.random.default_rng(seed)
    vocabulary = tokenizer().get_vocab_size()
    sizes = {"words": (vocabulary, width), "kinds": (2, width), "places": (40, width), "query": (width, width),
             "key": (width, width), "value": (width, width), "head": (width, labels)}  # fmt: skip
    weights = [numpy_helper.from_array(rng.normal(size=size).astype(np.float32), n) for n, size in sizes.items()]
    ends = {
        "logits": ("logits", "float[n, k]", "first = Gather<axis=1>(hidden, zero) logits = MatMul(first, head)"),
        "batched": (
            "logits",
            "float[n, k]",
            "first = Gather<axis=1>(hidden, zero) own = MatMul(first, head) "
            "mean = ReduceMean<keepdims=1>(own, from) logits = Sub(own, mean)",
        ),
        "tokens": ("logits", "float[n, t, k]", "logits = MatMul(hidden, head)"),
        "last_hidden_state": ("last_hidden_state", "float[n, t, w]", "last_hidden_state = Identity(hidden)"),
        "sentence_embedding": (
            "sentence_embedding",
            "float[n, w]",
            "sentence_embedding = Gather<axis=1>(hidden, zero)",
        ),
    }
    name, kind_of, end = ends[kind]
    model = parser.parse_model(
        f"""<ir_version: 9, opset_import: ["" : 18]>
        agraph (int64[n, t] input_ids, int64[n, t] attention_mask, int64[n, t] token_type_ids)
          => ({kind_of} {name})
        <int64 zero = {{0}}, int64[1] from = {{0}}, int64[1] one = {{1}},
         float low = {{-1e9}}, float whole = {{1.0}}> {{
          length = Shape<start=1, end=2>(input_ids) own_places = Slice(places, from, length, from)
          word = Gather(words, input_ids) type = Gather(kinds, token_type_ids) said = Add(word, type)
          given = Add(said, own_places)
          q = MatMul(given, query) k = MatMul(given, key) kt = Transpose<perm=[0, 2, 1]>(k) scores = MatMul(q, kt)
          seen = Cast<to=1>(attention_mask) unseen = Sub(whole, seen) far = Mul(unseen, low) away = Unsqueeze(far, one)
          masked = Add(scores, away) shares = Softmax<axis=-1>(masked) v = MatMul(given, value)
          mixed = MatMul(shares, v) summed = Add(given, mixed) hidden = Tanh(summed) {end}
        }}"""
    )
    model.graph.initializer.extend(weights)
    return model.SerializeToString()


def folder(place: Path, kind: str = "logits", labels: list[str] = LABELS, **config: Any) -> Path:
    """As `optimum-cli export onnx` leaves a small BERT."""
    words = tokenizer()
    said = {
        "model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": words.get_vocab_size(),
        "max_position_embeddings": 40, "pad_token_id": 0,
        "id2label": {str(number): label for number, label in enumerate(labels)}, **config,
    }  # fmt: skip
    place.mkdir(parents=True, exist_ok=True)
    (place / "model.onnx").write_bytes(graph(kind, len(labels)))
    (place / "config.json").write_text(json.dumps(said))
    words.save(str(place / "tokenizer.json"))
    own = {"model_max_length": 32, "tokenizer_class": "BertTokenizer", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (place / "tokenizer_config.json").write_text(json.dumps(own))
    return place


def embedder(place: Path, pooling: str = "mean", *, normalized: bool = True) -> Path:
    """As sentence-transformers leaves one."""
    folder(place, "last_hidden_state", architectures=["BertModel"])
    named = {f"pooling_mode_{name}": name.startswith(pooling) for name in ("cls_token", "mean_tokens", "max_tokens")}
    (place / "1_Pooling").mkdir()
    (place / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **named}))
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalized else [])]
    modules = [{"idx": k, "type": f"sentence_transformers.models.{kind}"} for k, kind in enumerate(kinds)]
    (place / "modules.json").write_text(json.dumps(modules))
    return place
