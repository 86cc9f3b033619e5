"""Parts of the local runner that need no process."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governed_api.resolved import ResolvedModel
from governed_api.roles import Role, bearer_token, role_of_key, token_key
from governed_operator.desired.decision import Revision
from governed_operator.desired.key_material import derives, draw
from governed_operator.desired.objects import canary_replicas
from governed_operator.desired.pod import WEIGHTS, source_volume
from governed_operator.local.addresses import Addresses
from governed_operator.local.errors import LocalError
from governed_operator.local.logs import readable
from governed_operator.local.manifest_file import load_model
from governed_operator.local.process_table import alive, known
from governed_operator.local.sample import Sample, load_sample
from governed_operator.local.supervision import Backoff
from governed_operator.local.translate import process_spec
from governed_operator.local.volumes import Secrets, Volumes
from governed_operator.local.workdir import Workdir

GOLDEN = Path(__file__).parents[2] / "golden"


def test_backoff_starts_at_once_and_doubles_to_its_cap() -> None:
    backoff = Backoff(first=0.5, cap=30)
    assert [backoff.delay(n) for n in (1, 2, 3, 4, 20)] == [0, 0.5, 1, 2, 30]


@pytest.mark.parametrize(
    ("line", "want"),
    [
        ('{"level":"ERROR","time":"t","message":"no","fields":{"a":1}}', ("error", "no a=1")),
        ('{"level":"info","message":"up","port":1}', ("info", "up port=1")),
        ("plain {text", ("", "plain {text")),
        ("[1]", ("", "[1]")),
    ],
)
def test_log_lines_become_readable(line: str, want: tuple[str, str]) -> None:
    assert readable(line) == want


def test_addresses_shift_ports_services_and_reports(tmp_path: Path) -> None:
    service = {"metadata": {"name": "governed-archive", "namespace": "team"}}
    addresses = Addresses(100, Workdir(tmp_path), [service], foreign=[9000])
    assert addresses.url("http://governed-archive.team.svc:8090/x") == "http://127.0.0.1:8190/x"
    assert addresses.url("http://127.0.0.1:9000") == "http://127.0.0.1:9000"
    assert addresses.url("http://elsewhere:8090") == "http://elsewhere:8090"
    assert addresses.url("just text") == "just text"
    api = "https://kubernetes.default.svc/apis/governedmodels.io/v1alpha1/namespaces/team/governancereports/tiny/status"
    assert addresses.url(api) == (tmp_path / "reports" / "tiny.json").as_uri()


def test_a_variable_is_mapped_by_what_the_contract_says_of_it_not_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    values = {
        # name: (in the pod, in the process)
        "GOVERNED_HTTP_PORT": ("8080", "8180"),
        "GOVERNED_MODEL_DIR": ("/mnt/models", str(folder)),
        "GOVERNED_UPSTREAM_URL": ("http://127.0.0.1:8082", "http://127.0.0.1:8182"),
        "OTHER_PORT": ("8080", "8080"),
        "GOVERNED_REVISION": ("/mnt/models", "/mnt/models"),
        "OTHER_URL": ("http://127.0.0.1:8082", "http://127.0.0.1:8082"),
    }
    container = {
        "name": "c",
        "command": ["python"],
        "env": [{"name": name, "value": value} for name, (value, _) in values.items()],
        "volumeMounts": [{"name": "model", "mountPath": "/mnt/models"}],
    }
    addresses = Addresses(100, Workdir(tmp_path), [])
    spec = process_spec(container, {}, "p", "n", {"model": folder}, addresses)
    assert {name: spec.environment[name] for name in values} == {name: want for name, (_, want) in values.items()}
    assert spec.ports == (8180,)


@pytest.mark.parametrize("name", ["server", "explainer", "auditor", "archive"])
def test_the_server_alone_may_be_reached_from_elsewhere(tmp_path: Path, name: str) -> None:
    hosts = []
    for addresses in (Addresses(0, Workdir(tmp_path), []), Addresses(0, Workdir(tmp_path), [], host="0.0.0.0")):
        spec = process_spec({"name": name, "command": ["python"]}, {}, "p", "n", {}, addresses)
        hosts.append(spec.environment["GOVERNED_HOST"])
    assert hosts == ["127.0.0.1", "0.0.0.0" if name == "server" else "127.0.0.1"]


def test_a_reused_pid_is_not_the_old_process() -> None:
    entry = known(os.getpid())
    assert alive(entry)
    assert not alive({**entry, "started": "1"})


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any), st.integers(1, 50))
def test_batches_hold_the_whole_population(counts: list[int], rows: int) -> None:
    sample = Sample([{"i": i} for i in range(len(counts))], counts, rows, [0])
    sent = [row["i"] for batch in sample.batches() for row in batch]
    assert [sent.count(i) for i in range(len(counts))] == counts
    assert all(len(batch) <= rows for batch in sample.batches())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "list of instances"),
        ({"instances": [{}], "count": [1]}, "count: unknown field"),
        ({"instances": [{}], "counts": [1, 2]}, "counts: expected 1"),
        ({"instances": [{}], "counts": [True]}, "counts: expected 1 whole"),
        ({"instances": [{}], "counts": [0]}, "not all 0"),
        ({"instances": [{}], "counts": {"a": 1}}, "counts: expected 1 whole"),
        ({"instances": [{}, 3]}, r"instances\[1\]: expected a mapping"),
        ({"instances": [{}], "explain": [1]}, "explain: expected indices below 1"),
        ({"instances": [{}], "explain": 0}, "explain: expected indices below 1"),
        ({"instances": [{}], "explain": [-1]}, "explain: expected indices below 1"),
        ({"instances": [{}], "rows": 0}, "rows: expected a whole number from 1 on, found 0"),
        ({"instances": [{}], "rows": "many"}, "rows: expected a whole number from 1 on, found 'many'"),
        ({"instances": [{}], "rows": 1.5}, "rows: expected"),
    ],
)
def test_bad_sample_names_the_field(tmp_path: Path, content: object, words: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps(content))
    with pytest.raises(LocalError, match=words):
        load_sample(path)


@given(st.integers(1, 50), st.integers(1, 99))
def test_canary_gets_at_least_its_share_and_no_more_pods_than_needed(stable: int, percent: int) -> None:
    pods = canary_replicas(stable, percent)
    assert pods / (pods + stable) >= percent / 100 - 1e-12
    assert pods == 1 or (pods - 1) / (pods - 1 + stable) < percent / 100


def _secret(name: str, keys: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ns", "labels": {"governedmodels.io/model": "m"}}
    return {"metadata": {**metadata, "annotations": {"governedmodels.io/generate": keys}}}


def test_tokens_derive_from_the_root_and_keys_are_fresh() -> None:
    secret, root = _secret("m-tokens", "server-token,trainer-token"), b"r" * 32
    assert draw(secret, root) == {
        "server-token": bearer_token(root, "ns", "m", Role.SERVER).encode(),
        "trainer-token": bearer_token(root, "ns", "m", Role.TRAINER).encode(),
    }
    assert derives(secret)
    with pytest.raises(ValueError, match="root key"):
        draw(secret, None)
    kek = _secret("m-kek", "kek")
    assert not derives(kek)
    assert not derives(_secret("m-kek", "kek,server-token"))
    assert len(draw(kek, None)["kek"]) == 32
    assert draw(kek, None) != draw(kek, None)


@pytest.mark.parametrize("key", ["kek", "root", "-token", "token", "server", "nobody-token", "server-token-token", ""])
def test_a_key_that_is_no_roles_is_drawn(key: str) -> None:
    assert role_of_key(key) is None
    assert {role_of_key(token_key(role)) for role in Role} == set(Role)


def test_scaling_and_suspending_make_no_new_revision() -> None:
    model = ResolvedModel.of(load_model(GOLDEN / "trained-full" / "input.yaml"))
    scaled = model.spec.predictor.model_copy(update={"min_replicas": 5, "max_replicas": 50})
    other = model.model_copy(update={"spec": model.spec.model_copy(update={"predictor": scaled, "suspend": True})})
    assert other.for_pods == model.for_pods
    assert Revision.of(other, "a").name == Revision.of(model, "a").name
    assert Revision.of(model, "b").name != Revision.of(model, "a").name
    timeout = model.spec.predictor.model_copy(update={"timeout": 31})
    changed = model.model_copy(update={"spec": model.spec.model_copy(update={"predictor": timeout})})
    assert Revision.of(changed, "a").name != Revision.of(model, "a").name


@pytest.mark.parametrize(
    ("word", "here"),
    [
        ("/mnt/models", "HERE"), ("/mnt/models/a.gguf", "HERE/a.gguf"), ("--model=/mnt/models/a", "--model=HERE/a"),
        ("/mnt/models2", "/mnt/models2"), ("/x/mnt/models", "/x/mnt/models"), ("/mnt/models.old", "/mnt/models.old"),
        ("a:/mnt/models:/mnt/models/b", "a:HERE:HERE/b"), ("", ""), ("\\1", "\\1"),
    ],
)  # fmt: skip
def test_a_runtimes_words_name_its_weights_where_they_lie_here(tmp_path: Path, word: str, here: str) -> None:
    container = {
        "name": "runtime", "command": ["python"], "args": [word], "env": [{"name": "WHERE", "value": word}],
        "volumeMounts": [{"name": "weights", "mountPath": "/mnt/models"}],
    }  # fmt: skip
    folder = tmp_path / r"my \1 weights"
    spec = process_spec(container, {}, "p", "n", {"weights": folder}, Addresses(0, Workdir(tmp_path), []))
    assert spec.argv[1] == spec.environment["WHERE"] == here.replace("HERE", str(folder))


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("file:a.gguf", "manifests/a.gguf"), ("file:/srv/a.gguf", "/srv/a.gguf"),
        ("pvc://c/v1/a.gguf", "work/volumes/c/v1/a.gguf"), ("pvc://c/", "work/volumes/c"),
    ],
)  # fmt: skip
def test_weights_lie_where_their_uri_says(tmp_path: Path, uri: str, place: str) -> None:
    workdir = Workdir(tmp_path / "work")
    volumes = Volumes("p", workdir, Secrets(workdir, ("k", "root")), {}, tmp_path / "manifests", weights=uri)
    assert volumes.directory(source_volume(uri, WEIGHTS)) == tmp_path / place


def test_weights_that_leave_their_claim_are_refused(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    volumes = Volumes("p", workdir, Secrets(workdir, ("k", "root")), {}, tmp_path, weights="pvc://c/../../x")
    with pytest.raises(LocalError, match="leaves the volume of claim c"):
        volumes.directory(source_volume("pvc://c/../../x", WEIGHTS))


def test_a_secret_of_the_manifest_that_is_not_there_is_told_with_its_folder(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    volumes = Volumes("p", workdir, Secrets(workdir, ("archive-keys", "root")), {}, tmp_path)
    volume = {"name": "source-keys", "secret": {"secretName": "reader"}}
    with pytest.raises(LocalError, match=f"Secret reader isn't there: make the folder {workdir.secrets}/reader with"):
        volumes.directory(volume)
    (workdir.secrets / "reader").mkdir(parents=True)
    (workdir.secrets / "reader" / "token").write_text("t")
    assert (volumes.directory(volume) / "token").read_text() == "t"


def test_a_run_leaves_tokens_where_pods_and_a_person_find_them(tmp_path: Path) -> None:
    """Also in a workdir of an older version, and after the archive was made anew: they follow from its root."""
    workdir = Workdir(tmp_path)
    secrets = Secrets(workdir, ("archive-keys", "root"))
    mine, theirs = _secret("m-operator", "operator-token"), _secret("m-tokens", "server-token,auditor-token")
    with pytest.raises(ValueError, match="root key"):
        secrets.ensure(mine)
    (workdir.secrets / "archive-keys").mkdir(parents=True)
    (workdir.secrets / "m-tokens" / "operator-token").parent.mkdir(exist_ok=True)
    (workdir.secrets / "m-tokens" / "operator-token").write_text("of an older version")
    for root in (b"r" * 32, b"s" * 32):
        (workdir.secrets / "archive-keys" / "root").write_bytes(root)
        secrets.ensure(mine)
        secrets.ensure(theirs)
        token = workdir.operator_token("m")
        assert token == workdir.secrets / "m-operator" / "operator-token"
        assert token.read_text() == bearer_token(root, "ns", "m", Role.OPERATOR)
        assert secrets.value("m-tokens", "auditor-token").decode() == bearer_token(root, "ns", "m", Role.AUDITOR)
        assert token.stat().st_mode & 0o777 == 0o600
