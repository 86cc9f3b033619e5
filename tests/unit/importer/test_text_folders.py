"""Folders with a tokenizer: what is served says so on one screen, what can't be is refused with what to do."""

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from governed_serving.artefact import MalformedArtefact
from governed_serving.formats import is_text_folder, read_text_folder
from governed_serving.importer.inspection import model_name
from governed_serving.importer.text_inspection import inspected_text, text_manifest_of, text_screen
from governed_serving.importer.text_trial import text_tried
from support.text_models import embedder, folder, graph


def change(place: Path, name: str, **said: object) -> None:
    path = place / name
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | said))


def without(name: str) -> Callable[[Path], object]:
    return lambda place: (place / name).unlink()


def slow(place: Path) -> None:
    (place / "tokenizer.json").unlink()
    (place / "vocab.txt").write_text("[PAD]\n")


def weights_alone(place: Path) -> None:
    (place / "model.onnx").rename(place / "model.safetensors")


def two_graphs(place: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        (place / name).write_bytes((place / "model.onnx").read_bytes())
    (place / "model.onnx").unlink()


def huge(place: Path) -> None:
    with (place / "tokenizer.json").open("r+b") as file:
        file.truncate((64 << 20) + 1)


def fixed(place: Path) -> None:
    import onnx

    model = onnx.load(place / "model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 16
    onnx.save(model, place / "model.onnx")


def another_input(place: Path) -> None:
    import onnx

    model = onnx.load(place / "model.onnx")
    model.graph.input.append(onnx.helper.make_tensor_value_info("past_key", onnx.TensorProto.FLOAT, ["n", "t"]))
    onnx.save(model, place / "model.onnx")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a slow tokenizer": (slow, r"tokenizer.json: expected it beside config.json, found vocab.txt; .*use_fast=True"),
    "no tokenizer": (without("tokenizer.json"), r"tokenizer.json: expected it beside config.json, found none"),
    "weights without a graph": (weights_alone, r"found model.safetensors; export it: optimum-cli export onnx"),
    "two graphs": (two_graphs, r"expected onnx/model.onnx or model.onnx, found a.onnx, b.onnx; rename .*storage.files"),
    "a tokenizer beyond the bound": (huge, r"tokenizer.json: expected a readable file of at most 64 MiB"),
    "a tokenizer that is none": (
        lambda place: (place / "tokenizer.json").write_text("{}"),
        r"tokenizer.json: expected what Hugging Face's tokenizers write",
    ),
    "a configuration that is no object": (
        lambda place: (place / "config.json").write_text("[1]"),
        r"config.json: expected a JSON object, found list",
    ),
    "a configuration that is no JSON": (
        lambda place: (place / "config.json").write_text("{"),
        r"config.json: expected JSON",
    ),
    "tokens beyond the configuration's vocabulary": (
        lambda place: change(place, "config.json", vocab_size=50),
        r"expected tokens below config.json's vocab_size 50, found '\S+' with \d+: it belongs to another model",
    ),
    "tokens beyond the graph's embeddings": (
        lambda place: (
            (
                change(place, "config.json", vocab_size=None),
                change(
                    place,
                    "tokenizer.json",
                    added_tokens=[
                        *json.loads((place / "tokenizer.json").read_text())["added_tokens"],
                        {
                            "id": 999,
                            "content": "zzz",
                            "special": False,
                            "single_word": False,
                            "lstrip": False,
                            "rstrip": False,
                            "normalized": False,
                        },
                    ],
                ),
            )
        ),
        r"expected an answer to 32 tokens up to \d+, as config.json and tokenizer.json say, found: .*belong together",
    ),
    "more positions than the graph has": (
        lambda place: (
            (
                change(place, "config.json", max_position_embeddings=400),
                change(place, "tokenizer_config.json", model_max_length=400),
            )
        ),
        r"expected an answer to 400 tokens",
    ),
    "labels that aren't counted": (
        lambda place: change(place, "config.json", id2label={"1": "a", "2": "b", "3": "c"}),
        r"id2label: expected names for 0 to 2, found 1, 2, 3",
    ),
    "fewer labels than logits": (
        lambda place: change(place, "config.json", id2label={"0": "a", "1": "b"}),
        r"id2label: expected 3 names, as the graph answers logits, found 2",
    ),
    "labels twice": (
        lambda place: change(place, "config.json", id2label={"0": "a", "1": "a", "2": "b"}),
        r"id2label: expected each name once",
    ),
    "a label that can't be printed": (
        lambda place: change(place, "config.json", id2label={"0": "a\n", "1": "b", "2": "c"}),
        r"id2label: expected a printable name",
    ),
    "token classification": (
        lambda place: (
            (
                (place / "model.onnx").write_bytes(graph("tokens")),
                change(place, "config.json", architectures=["BertForTokenClassification"]),
            )
        ),
        r"found BertForTokenClassification with logits of 3 dimensions, which is not served yet",
    ),
    "fixed lengths": (fixed, r"input 'input_ids': expected free rows and tokens, found shape \['n', 16\]"),
    "a decoder's inputs": (another_input, r"input 'past_key': expected some of input_ids.*without past key values"),
    "no ONNX": (
        lambda place: (place / "model.onnx").write_bytes(b"no model"),
        r"ONNX file: expected a model as onnx.save writes it",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cant_be_served_is_refused_with_what_to_do(tmp_path: Path, case: str) -> None:
    spoil, message = REFUSED[case]
    place = folder(tmp_path / "m")
    spoil(place)
    with pytest.raises(MalformedArtefact, match=message) as error:
        text_tried(read_text_folder(place))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, "found mean, max"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_weightedmean_tokens": True}, "none that is known"),
    ],
)
def test_poolings_that_arent_known_are_refused(tmp_path: Path, said: dict[str, bool], message: str) -> None:
    place = embedder(tmp_path / "m")
    change(place, "1_Pooling/config.json", **said)
    with pytest.raises(MalformedArtefact, match=message):
        text_tried(read_text_folder(place))


def test_a_dense_layer_behind_the_pooling_is_refused(tmp_path: Path) -> None:
    place = embedder(tmp_path / "m")
    modules = json.loads((place / "modules.json").read_text())
    modules.insert(2, {"type": "sentence_transformers.models.Dense"})
    (place / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(MalformedArtefact, match="found Dense; export the whole"):
        text_tried(read_text_folder(place))


def test_a_pickle_in_the_folder_is_refused(tmp_path: Path) -> None:
    place = folder(tmp_path / "m")
    (place / "pytorch_model.bin").write_bytes(pickle.dumps({"weights": [1.0] * 40}))
    with pytest.raises(MalformedArtefact, match=r"pytorch_model.bin: expected no pickle"):
        inspected_text(place)


def test_a_file_that_was_changed_behind_its_digest_is_refused(tmp_path: Path) -> None:
    place = folder(tmp_path / "m")
    with pytest.raises(MalformedArtefact, match="expected the bytes that were verified"):
        read_text_folder(place, {"config.json": "0" * 64})


@pytest.mark.parametrize(
    ("config", "own", "bert", "wanted"),
    [
        ({}, {}, {}, 32),
        ({"max_position_embeddings": 20}, {}, {}, 20),
        ({}, {}, {"max_seq_length": 8}, 8),
        ({}, {"model_max_length": 1000000000000000019884624838656}, {}, 40),
        ({"model_type": "roberta", "max_position_embeddings": 34, "pad_token_id": 1}, {}, {}, 32),
        ({"max_position_embeddings": None}, {"model_max_length": None}, {}, 512),
        ({"max_position_embeddings": True}, {"model_max_length": "32"}, {}, 512),
    ],
)
def test_how_long_a_text_may_be(
    tmp_path: Path, config: dict[str, object], own: dict[str, object], bert: dict[str, object], wanted: int
) -> None:
    place = folder(tmp_path / "m")
    change(place, "config.json", **config)
    change(place, "tokenizer_config.json", **own)
    if bert:
        change(place, "sentence_bert_config.json", **bert)
    assert read_text_folder(place).settings.max_tokens == wanted


def test_one_screen_says_what_it_is(tmp_path: Path) -> None:
    screen = text_screen(inspected_text(folder(tmp_path / "reviews")))
    for line in (
        "reviews: BertForSequenceClassification, model.onnx and tokenizer.json",
        "at most 32 tokens are read",
        "softmax over classes bad, good, so so",
        "Served:    texts; those of equal length share a call",
        "Explained: yes, by its words",
        "Audited:   yes, by favorableOutcome.label",
    ):
        assert line in screen
    assert len(screen.splitlines()) < 30


def test_one_screen_says_how_vectors_are_made(tmp_path: Path) -> None:
    screen = text_screen(inspected_text(embedder(tmp_path / "vectors")))
    assert "[n, 32]; the mean over its tokens, of length 1" in screen
    assert "Explained: no" in screen
    assert "/v1/embeddings" in screen


def test_the_suggested_manifest_pins_the_folder(tmp_path: Path) -> None:
    found = inspected_text(folder(tmp_path / "Reviews"))
    said = yaml.safe_load(text_manifest_of(found, "", "file:Reviews"))
    assert said["metadata"]["name"] == "reviews"
    assert said["spec"]["predictor"]["model"] == {"storageUri": "file:Reviews", "digest": found.digest}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("all-MiniLM-L6-v2", "all-minilm-l6-v2"), ("gpt2", "gpt2"), ("7b-chat-7", "b-chat-7"), ("2024", "model"),
        ("模型", "model"), ("a" * 39 + "--7", "a" * 39),
        ("--x--", "x"), ("Bert_base.v1", "bert-base-v1"), ("", "model"),
        ("x" * 50, "x" * 40),
    ],
)  # fmt: skip
def test_a_name_is_kept_as_far_as_a_model_may_have_it(text: str, name: str) -> None:
    assert model_name(text) == name
    assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name)


def test_an_artefacts_folder_is_none_of_these(tmp_path: Path) -> None:
    place = folder(tmp_path / "m")
    assert is_text_folder(place)
    (place / "model.json").write_text("{}")
    assert not is_text_folder(place)
