"""Sampled live traffic out of a real journal, the predictor client on the wire, and the process's own start-up."""

import json
import shutil
from array import array

import httpx
import numpy as np
import pytest

from governed_serving.blackbox.client import PredictorClient
from governed_serving.blackbox.errors import ModelMisbehaved, PredictorAway
from governed_serving.crypto import DirectoryStore, Keyring, SegmentCipher, load_kek
from governed_serving.explainer.service.lanes import Lane
from governed_serving.explainer.service.live import BACKLOG, LiveSampler, SampledStreams, chosen, requests_in
from governed_serving.journal import Journal, JournalReader, streams
from governed_serving.journal.columns import pack
from governed_serving.records import PredictionFrame
from unit.explainer import models
from unit.explainer.beds import Bed


def frame(ids, seed, rows=1):
    table = models.table(len(ids) * rows, seed)
    features = {n: pack("BYTES" if v.dtype == object else "FP32", 1, [v], len(v)) for n, v in table.items()}
    times = np.zeros(len(ids)).tobytes()
    return PredictionFrame(
        "loans", "r1", "sha256:0", ids, times, array("i", [rows] * len(ids)).tobytes(), features, {}
    ), table


@pytest.fixture
def cipher(tmp_path):
    kek = tmp_path / "kek"
    kek.write_bytes(bytes(range(32)))
    kek.chmod(0o600)
    return SegmentCipher(Keyring(load_kek(kek), DirectoryStore(tmp_path / "keys")).keyset("journal"))


def sampler(bed, spool, cipher, share):
    return LiveSampler(
        SampledStreams(
            lambda: streams(spool), lambda name: JournalReader(spool, name, cipher), spool / "cursors" / "explainer"
        ),
        lambda frame: requests_in(frame, bed.engine.model.features, share),
        bed.explanations.compute,
        Lane("slow", 1, 8),
        bed.metrics,
        lambda *_, **__: None,
    )


def test_choice_depends_on_the_id_alone_and_has_the_asked_share():
    ids = [f"request-{i}" for i in range(20_000)]
    share = np.mean([chosen(i, 0.05) for i in ids])
    assert share == pytest.approx(0.05, abs=0.006)
    assert [chosen(i, 0.05) for i in ids] == [chosen(i, 0.05) for i in ids]
    assert not any(chosen(i, 0.0) for i in ids)
    assert all(chosen(i, 1.0) for i in ids)


async def test_sampled_requests_are_explained_once_to_what_explain_would_answer(tmp_path, cipher):
    ids = [f"q{i}" for i in range(40)]
    first, table = frame(ids[:20], 1)
    second, _ = frame(ids[20:], 2)
    bed = Bed(tmp_path / "jobs")
    with Journal(tmp_path, "server-0", cipher, "PageCache") as journal:
        await journal.append(first)
        await sampler(bed, tmp_path, cipher, 0.3).look()
        await journal.append(second)
        await sampler(bed, tmp_path, cipher, 0.3).look()
        assert not await sampler(bed, tmp_path, cipher, 0.3).look()
    expected = [i for i in ids if chosen(i, 0.3)]
    assert [record.id for record in bed.journal.records] == expected
    index = ids.index(expected[0])
    row = {name: values[index : index + 1] for name, values in table.items()}
    asked = await bed.client.post("/v2/models/loans/explain", content=models.request(row, expected[0]))
    assert asked.content == bed.journal.records[0].body


async def test_a_stream_made_anew_is_sampled_from_its_beginning(tmp_path, cipher):
    """The spool was lost with the cursors kept: what the new stream holds is not taken for what was read before."""
    bed = Bed(tmp_path / "jobs")
    for ids in (["a", "b", "c"], ["d"], ["e"]):
        shutil.rmtree(tmp_path / "journal", ignore_errors=True)
        with Journal(tmp_path, "server-0", cipher, "PageCache") as journal:
            for number, name in enumerate(ids):
                await journal.append(frame([name], number)[0])
            assert await sampler(bed, tmp_path, cipher, 1.0).look()
    assert [record.id for record in bed.journal.records] == ["a", "b", "c", "d", "e"]


async def test_sampling_drops_are_bounded_and_counted(tmp_path, cipher):
    bed = Bed(tmp_path / "jobs")
    many, _ = frame([f"m{i}" for i in range(BACKLOG + 5)], 3)
    wide, _ = frame(["w"], 4, rows=11)

    async def quick(request, lane=None):  # noqa: ARG001
        return b""

    with Journal(tmp_path, "server-0", cipher, "PageCache") as journal:
        one = sampler(bed, tmp_path, cipher, 1.0)
        one._compute = quick
        await journal.append(many)
        await one.look()
        await journal.append(wide)
        await one.look()
    text = bed.metrics.text().decode()
    assert 'reason="behind"} 5.0' in text
    assert 'reason="rows"} 3.0' in text


def served(handler):
    return PredictorClient(
        "http://server",
        "loans",
        "probabilities",
        patience=2.0,
        client=httpx.Client(transport=httpx.MockTransport(handler)),
        sleep=lambda _: None,
    )


def answer(request):
    length = int(request.headers["inference-header-content-length"])
    head, at, columns = json.loads(request.content[:length]), length, {}
    for tensor in head["inputs"]:
        size = tensor["parameters"]["binary_data_size"]
        data, at = request.content[at : at + size], at + size
        if tensor["datatype"] == "FP32":
            columns[tensor["name"]] = np.frombuffer(data, "<f4")
        else:
            words = models.strings(tensor["parameters"]["dictionary"])
            columns[tensor["name"]] = words[np.frombuffer(data, "<i4")]
    values = models.probabilities(columns).astype(np.float32)
    label = b"x" * 6
    out = json.dumps(
        {
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 6}},
                {
                    "name": "probabilities",
                    "datatype": "FP32",
                    "shape": list(values.shape),
                    "parameters": {"binary_data_size": values.nbytes},
                },
            ]
        }
    ).encode()
    return httpx.Response(
        200, content=out + label + values.tobytes(), headers={"inference-header-content-length": str(len(out))}
    )


def test_predictor_speaks_v2_binary_both_ways():
    table = models.table(5, 1)
    table["job"][0] = "锻工"
    np.testing.assert_allclose(served(answer)(table), models.probabilities(table), atol=1e-6)


def test_predictor_reads_json_answers_too():
    def plain(_):
        return httpx.Response(
            200,
            json={
                "outputs": [
                    {"name": "probabilities", "datatype": "FP32", "shape": [2, 2], "data": [0.1, 0.9, 0.2, 0.8]}
                ]
            },
        )

    np.testing.assert_allclose(served(plain)(models.table(2, 1)), [[0.1, 0.9], [0.2, 0.8]], atol=1e-7)


def test_predictor_retries_while_the_server_is_busy_then_gives_up():
    states = [503, 429, 200]  # codes that the handler turns into answers

    def busy(request):
        return answer(request) if states.pop(0) == 200 else httpx.Response(503)

    states[:] = [503, 503, 200]
    assert served(busy)(models.table(1, 1)).shape == (1, 2)
    with pytest.raises(PredictorAway, match="it answered 503"):
        served(lambda _: httpx.Response(503))(models.table(1, 1))


@pytest.mark.parametrize(
    "content",
    [
        b"no json",
        b'{"outputs": []}',
        b'{"outputs": [{"name": "probabilities", "datatype": "FP32", "data": [1, 2, 3]}]}',
    ],
)
def test_predictor_that_answers_nonsense_is_named(content):
    with pytest.raises(ModelMisbehaved):
        served(lambda _: httpx.Response(200, content=content))(models.table(2, 1))


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "INT8", "UINT64"])
def test_predictor_reads_outputs_of_every_number(datatype):
    def plain(_):
        tensor = {"name": "probabilities", "datatype": datatype, "shape": [2, 2], "data": [0, 1, 1, 0]}
        return httpx.Response(200, json={"outputs": [tensor]})

    np.testing.assert_array_equal(served(plain)(models.table(2, 1)), [[0, 1], [1, 0]])
