"""A folder with a tokenizer run through what would serve it."""

import time
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from governed_serving.artefact import TOKEN_INPUTS, Lineage, MalformedArtefact, Text
from governed_serving.formats import Node, TextAnswer, TextFiles, TextOutput, read, text_manifest
from governed_serving.importer.answering import answered
from governed_serving.importer.trial import Session
from governed_serving.server.errors import ServerError
from governed_serving.server.predictors.onnx import session
from governed_serving.server.predictors.text import NUMPY_OF_TOKENS, PROBES, TextPredictor, fed
from governed_serving.server.predictors.tokens import opened
from governed_serving.server.signature import Signature

__all__ = ["text_tried"]

CHECK_SECONDS = 60.0
"""What looking for rows that change each other may take."""
WORDS = (7, 30, 120, 500)
"""Lengths of texts that are looked at, beside those that every start of a server looks at."""
HOSTILE = ("", " ", "\x00", "\u200b", "e" + "\u0301" * 500, "👍🏽" * 40, "[CLS][SEP]</s><s><|endoftext|>", "a" * 5000)
"""Texts that some tokenizers have stumbled over: all must be answered, or refused as a request."""


def text_tried(files: TextFiles) -> tuple[TextAnswer, str]:
    """What serves it, and why rows don't share a call, "" where they do. Raises MalformedArtefact with what keeps it
    from being served, and what to do."""
    read(files.model)
    try:
        run = session(files.model)
    except ValueError as error:
        raise MalformedArtefact(f"ONNX file: {str(error).removeprefix('model.onnx: ')}") from error
    inputs = _inputs([Node(i.name, i.type, list(i.shape)) for i in run.get_inputs()])
    output = files.settings.output([Node(o.name, o.type, list(o.shape)) for o in run.get_outputs()])
    text, largest = _text(files, inputs, output)
    width = _width(run, text, largest, output)
    classes = files.settings.classes(width) if output.task == "classification" else []
    if output.task == "classification" and len(classes) != width:
        raise MalformedArtefact(
            f"config.json: id2label: expected {width} names, as the graph answers logits, found {len(classes)}"
        )
    if output.task == "regression" and width != 1:
        raise MalformedArtefact(f"ONNX file: expected one logit of a regression, found {width}")
    answer = TextAnswer(text, output.task, files.path, width, classes)
    predictor = _predictor(files, answer)
    _ask_hostile(predictor)
    why, shown = _dependence(predictor)
    if shown:  # a check that ran out of time says nothing of the model, and must not change its artefact
        answer = msgspec.structs.replace(answer, text=msgspec.structs.replace(text, alone=True))
        predictor = _predictor(files, answer)
    answered(predictor)
    return answer, why


def _inputs(nodes: Sequence[Node]) -> list[str]:
    for node in nodes:
        if node.name not in TOKEN_INPUTS:
            raise MalformedArtefact(
                f"ONNX file: input {node.name!r}: expected some of {', '.join(TOKEN_INPUTS)}, found it; export the "
                "model with optimum, without past key values"
            )
        if len(node.shape) != 2 or any(isinstance(size, int) for size in node.shape):
            raise MalformedArtefact(
                f"ONNX file: input {node.name!r}: expected free rows and tokens, found shape {node.shape}: texts are "
                "not padded here; export it with dynamic axes, as optimum does"
            )
    names = [node.name for node in nodes]
    if "input_ids" not in names:
        raise MalformedArtefact(f"ONNX file: expected an input input_ids, found {', '.join(names)}")
    return names


def _text(files: TextFiles, inputs: list[str], output: TextOutput) -> tuple[Text, int]:
    """How texts are read, and the largest token. Raises MalformedArtefact."""
    settings, tokenizer = files.settings, opened(files.tokenizer)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    largest = max(vocabulary.values(), default=-1)
    if largest < 0:
        raise MalformedArtefact("tokenizer.json: expected a vocabulary, found none")
    if settings.vocabulary is not None and largest >= settings.vocabulary:
        word = next(word for word, place in vocabulary.items() if place == largest)
        raise MalformedArtefact(
            f"tokenizer.json: expected tokens below config.json's vocab_size {settings.vocabulary}, found {word!r} "
            f"with {largest}: it belongs to another model, or embeddings were not resized before the export"
        )
    unknown = vocabulary.get(settings.unknown()) if settings.unknown() else None
    special = {place for place, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    special |= {vocabulary[word] for word in settings.special() if word in vocabulary}
    most = settings.max_tokens
    if most <= tokenizer.num_special_tokens_to_add(False):
        raise MalformedArtefact(f"config.json: expected room for tokens beside the special ones, found {most} in all")
    text = Text(
        inputs=inputs,
        output=output.name,
        max_tokens=most,
        pooling=output.pooling,
        normalized=bool(output.pooling) and settings.normalized,
        activation=settings.activation(output.task),
        special=sorted(special - {unknown}),
        unknown=unknown,
        padding=settings.padding if settings.padding is not None and settings.padding <= largest else unknown or 0,
        cut_left=settings.cut_left,
    )
    return text, largest


def _width(run: Session, text: Text, largest: int, output: TextOutput) -> int:
    """Values of an answer, from asking for the largest token, as long as a text may be. Raises MalformedArtefact."""
    ids = np.full((1, text.max_tokens), largest, np.int64)
    kinds: dict[str, np.dtype[np.generic]] = {
        node.name: NUMPY_OF_TOKENS.get(node.type, np.dtype(np.int64)) for node in run.get_inputs()
    }
    try:
        (answer,) = run.run([text.output], fed(ids, np.zeros_like(ids), kinds))
    except Exception as error:  # ONNX Runtime raises a dozen classes of its own
        raise MalformedArtefact(
            f"ONNX file: expected an answer to {text.max_tokens} tokens up to {largest}, as config.json and "
            f"tokenizer.json say, found: {' '.join(str(error).split())[:300]}; do they belong together?"
        ) from error
    values: NDArray[np.generic] = np.asarray(answer)
    wanted = (1, text.max_tokens) if output.pooling else (1,)
    if values.dtype.kind != "f" or values.shape[:-1] != wanted or not values.shape[-1]:
        raise MalformedArtefact(
            f"ONNX file: output {text.output!r}: expected floats of shape [{', '.join(map(str, wanted))}, n], found "
            f"{values.dtype} {list(values.shape)}"
        )
    return int(values.shape[-1])


def _predictor(files: TextFiles, answer: TextAnswer) -> TextPredictor:
    manifest = text_manifest("trial", answer, [], Lineage("", "imported", "", {}))
    try:
        return TextPredictor(files.model, files.tokenizer, Signature.of(manifest))
    except ValueError as error:
        raise MalformedArtefact(f"ONNX file: {error}") from error


def _ask_hostile(predictor: TextPredictor) -> None:
    for text in (*PROBES, *HOSTILE):
        try:
            outputs = predictor.run([np.array([[text]], object)])
        except ServerError as error:
            if error.status >= 500:
                raise MalformedArtefact(f"expected an answer to the text {text[:40]!r}, found: {error}") from error
            continue
        if outputs[0].dtype.kind == "f" and not np.isfinite(outputs[0].astype(np.float64)).all():
            raise MalformedArtefact(
                f"ONNX file: expected finite numbers for the text {text[:40]!r}, found NaN or infinity"
            )


def _dependence(predictor: TextPredictor) -> tuple[str, bool]:
    """Why rows don't share a call, "" where they do; whether they were shown to get other bits."""
    if not predictor.independence.independent:
        return predictor.independence.first, predictor.independence.different > 0
    until = time.monotonic() + CHECK_SECONDS
    for words in WORDS:
        rows = [" ".join("abcde"[(row + place) % 5] for place in range(words)) for row in range(3)]
        alone = [_bits(predictor, [row])[0] for row in rows]
        if _bits(predictor, rows) != alone or _bits(predictor, rows[::-1]) != alone[::-1]:
            return f"texts of {words} words get other bits together than alone", True
        if time.monotonic() > until:
            return f"not shown beyond texts of {words} words in {CHECK_SECONDS:g} s", False
    return "", False


def _bits(predictor: TextPredictor, texts: list[str]) -> list[bytes]:
    """Of the first output, for each text."""
    (outputs, *_) = predictor.run([np.array([[text] for text in texts], object)])
    return [np.ascontiguousarray(row).tobytes() for row in outputs]
