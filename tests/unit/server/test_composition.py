"""Spec to data plane: each field that this room accepts has its effect."""

import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from governed_api.model import GovernedModel
from governed_api.resolved import ResolvedModel
from governed_serving.environment import InvalidSettings
from governed_serving.journal import Journal, strings
from governed_serving.records import PredictionFrame
from governed_serving.server import composition
from governed_serving.server.app.service import Gateway, HttpService
from governed_serving.server.predictors.onnx import OnnxPredictor
from governed_serving.server.settings import ServerSettings, available_cores
from governed_serving.server.signature import Signature
from unit.server.tabular_model import v2_body, write_artefact


def settings(folder: Path, **env: str) -> ServerSettings:
    kek = folder / "kek"
    kek.write_bytes(os.urandom(32))
    kek.chmod(0o600)
    places = {
        "GOVERNED_SPEC": "spec",
        "GOVERNED_KEK_FILE": "kek",
        "GOVERNED_SPOOL_DIR": "spool",
        "GOVERNED_MODEL_DIR": "artefact",
    }
    return ServerSettings.from_environment({k: str(folder / v) for k, v in places.items()} | env)


def resolved(**spec: Any) -> ResolvedModel:
    model = {"predictor": {"model": {"storageUri": "file:m.onnx", "digest": "sha256:" + "0" * 64}}}
    resource = {"apiVersion": "governedmodels.io/v1alpha1", "kind": "GovernedModel", "metadata": {"name": "credit"}}
    return ResolvedModel.of(GovernedModel.model_validate(resource | {"spec": model | spec}))


def build(folder: Path, **spec: Any) -> tuple[HttpService, Journal]:
    made, model = settings(folder), resolved(**spec)
    write_artefact(folder / "artefact", text=True)
    artefact = composition.load_artefact(made, model)
    keyring = composition.open_keyring(made, "credit")
    journal = composition.open_journal(made, model.spec.governance.audit, keyring)
    predictor = OnnxPredictor(artefact.model, Signature.of(artefact.manifest))
    gateway = Gateway("credit", why="")
    path = composition.pipeline(made, model, gateway, artefact=artefact.digest, keyring=keyring, journal=journal)
    service = composition.http_service(path, model, predictor)
    return service, journal


async def test_personal_data_is_masked_by_the_real_recognisers_into_the_real_journal(tmp_path: Path) -> None:
    masking = {"privacy": {"masking": {"fields": ["note"]}}}
    service, journal = build(tmp_path, governance=masking)
    body = msgspec.json.encode(v2_body(text="call 13812345678 or ann@example.org", identity="a"))
    reply = await service.infer(body, None)
    assert reply.status == 200
    await service.plane.close()
    journal.close()
    from governed_serving.crypto import DirectoryStore, Keyring, SegmentCipher, load_kek
    from governed_serving.journal import JournalReader

    keyset = Keyring(load_kek(tmp_path / "kek"), DirectoryStore(tmp_path / "spool" / "keysets")).keyset("journal")
    ((_, frame),) = JournalReader(tmp_path / "spool", "server-local", SegmentCipher(keyset)).read()
    assert isinstance(frame, PredictionFrame)
    assert strings(frame.features["note"]).tolist() == ["call <PHONE_NUMBER> or <EMAIL>"]
    assert b'governed_masked_entities_total{component="server",entity="EMAIL"' in service.plane.metrics.text()


async def test_names_are_masked_for_model_and_journal_and_refused_when_they_cannot_be_found(tmp_path: Path) -> None:
    masking = {"privacy": {"masking": {"names": {"budget": "60s"}}}}
    service, journal = build(tmp_path, governance=masking)
    reply = await service.infer(msgspec.json.encode(v2_body(text="联系人欧阳修")), None)
    assert reply.status == 200
    finder = service.plane.pipeline.masking
    assert finder is not None
    assert finder.texts(["联系人欧阳修"]) == ["联系人<PERSON>"]
    names: Any = finder.names
    names._stage.budget = 0.0
    late = await service.infer(msgspec.json.encode(v2_body(text="联系人司马光")), None)
    assert late.status == 503
    assert b"masking.names.budget" in late.body
    assert "司马光".encode() not in late.body
    text = service.plane.metrics.text()
    assert b'governed_masked_entities_total{component="server",entity="PERSON"' in text
    assert re.search(rb'governed_names_failures_total{[^}]*reason="budget"} 1\.0', text)
    assert re.search(rb"governed_masking_failures_total{[^}]*} 1\.0", text)
    assert b"governed_names_waiting{" in text
    await service.plane.close()
    journal.close()


async def test_without_masking_rules_text_passes(tmp_path: Path) -> None:
    service, journal = build(tmp_path)
    reply = await service.infer(msgspec.json.encode(v2_body(text="13812345678")), None)
    assert reply.status == 200
    assert b"governed_masked_entities_total{" not in service.plane.metrics.text()
    await service.plane.close()
    journal.close()


def test_masking_a_field_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"privacy\.masking\.fields: expected string inputs .*found 'income'"):
        build(tmp_path, governance={"privacy": {"masking": {"fields": ["income"]}}})


async def test_quota_concurrency_and_timeout_reach_the_plane(tmp_path: Path) -> None:
    service, journal = build(tmp_path, quota={"requests": [{"limit": 1, "window": "1h"}], "maxConcurrent": 3})
    body = msgspec.json.encode(v2_body(text="x"))
    assert (await service.infer(body, None)).status == 200
    assert (await service.infer(body, None)).status == 429
    await service.plane.close()
    journal.close()


def test_settings_name_what_is_missing_or_wrong(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="GOVERNED_SPEC"):
        ServerSettings.from_environment({})
    with pytest.raises(InvalidSettings, match="GOVERNED_HTTP_PORT: expected a whole number, found 'http'"):
        settings(tmp_path, GOVERNED_HTTP_PORT="http")


def test_cores_respect_the_cgroup(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text("100000 100000\n")
    assert available_cores(quota) == 1
    quota.write_text("50000 100000\n")
    assert available_cores(quota) == 1
    quota.write_text("max 100000\n")
    assert available_cores(quota) == len(os.sched_getaffinity(0))
