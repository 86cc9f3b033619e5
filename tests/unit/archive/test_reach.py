"""Who may do what in an archive: one table, asked by every route; tokens that speak for a role, and what they can't."""

import hashlib
import math
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import msgspec
import pytest
from starlette.routing import Route

from governed_api.names import ARCHIVE
from governed_api.roles import Role, bearer_token
from governed_serving.archive.app import create_app
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import ArchiveError, Refused
from governed_serving.archive.ledger.note import Verifier, open_dossier
from governed_serving.archive.metrics import ArchiveMetrics
from governed_serving.archive.reach import ACTS, OLDER, PUBLIC, REACH, Act, Speaker
from governed_serving.archive.store.retention import DELETION, Pace
from governed_serving.archive.tokens import OLDER_SECONDS, ROLES_SINCE, Tokens, model_token, older_until
from governed_serving.archive.verify.sources import UrlSource
from governed_serving.crypto import DirectoryStore, Keyring
from governed_serving.records import ENTRY_TYPES, EVENT_TYPES, AppendRequest, timestamp

from .ledgers import leaf
from .test_app import MODEL_KEK, ROOT, Bed, sealed

CONTAINERS = (Role.SERVER, Role.EXPLAINER, Role.AUDITOR, Role.TRAINER, Role.IMPORTER, Role.FETCH)
OPEN = {"/healthz/live", "/healthz/ready", "/metrics"}


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    with closing(Bed(tmp_path)) as made:
        yield made


def client(bed: Bed, role: Role, model: str = "credit", named: str = "") -> ArchiveClient:
    token = bearer_token(ROOT, "default", model, role)
    return ArchiveClient("http://archive", token, named or model, transport=bed.transport, patience=0.0)


def asked(bed: Bed, token: str, method: str, path: str, content: bytes = b"", **headers: str) -> httpx.Response:
    named = {"authorization": f"Bearer {token}", **{k.replace("_", "-"): v for k, v in headers.items()}}
    with httpx.Client(base_url="http://archive", transport=bed.transport) as anyone:
        return anyone.request(method, path, headers=named, content=content)


# -- the table ---------------------------------------------------------------------------------------------------------


def routes_of(bed: Bed) -> set[tuple[str, str]]:
    app = bed.transport.inner.app
    found = {(m, r.path) for r in app.routes if isinstance(r, Route) for m in r.methods or ()}
    return {(m, path) for m, path in found if m != "HEAD" and path not in OPEN}


def test_every_route_has_a_line_and_every_line_a_route(bed: Bed) -> None:
    assert routes_of(bed) == ACTS.keys() | PUBLIC
    assert not ACTS.keys() & PUBLIC
    assert {*ACTS.values(), Act.REPLACE_KEYSET} == set(Act)


@pytest.mark.parametrize("table", [ACTS, PUBLIC])
def test_a_route_without_a_line_is_not_served(bed: Bed, monkeypatch: pytest.MonkeyPatch, table: object) -> None:
    for name, old in (("ACTS", ACTS), ("PUBLIC", PUBLIC)):
        if old is table:
            less = dict(list(ACTS.items())[1:]) if name == "ACTS" else frozenset(list(PUBLIC)[1:])
            monkeypatch.setattr(f"governed_serving.archive.app.{name}", less)
    with pytest.raises(LookupError, match=r"say in archive/reach\.py who may do it"):
        create_app(bed.archive, Tokens(ROOT, "default"), ArchiveMetrics("default"))


def test_every_role_and_every_entry_type_has_its_place() -> None:
    assert set(REACH) == set(Role)
    writers = {t: [r for r in Role if t in REACH[r].get(Act.APPEND, ())] for t in ENTRY_TYPES}
    nobody = {t for t, roles in writers.items() if not roles}
    assert nobody == {"key"}, "a new type of entry needs the one role that writes it"
    shared = {t: roles for t, roles in writers.items() if len(roles) > 1}
    assert shared == {"artefact": [Role.TRAINER, Role.IMPORTER]}, "a model is trained or fetched, never both"
    assert all(writers[t] == [Role.AUDITOR] for t in EVENT_TYPES)
    assert all(names for line in (*REACH.values(), OLDER) for names in line.values())


def test_who_writes_reads_no_more_than_it_needs() -> None:
    changing = {
        Act.APPEND, Act.PUT_BLOB, Act.CREATE_KEYSET, Act.REPLACE_KEYSET, Act.DESTROY_KEYSET, Act.PUT_REF, Act.PUT_STATE,
    }  # fmt: skip
    for role in (Role.VERIFIER, Role.READER):
        assert not changing & REACH[role].keys()
    assert Act.DESTROY_KEYSET not in {act for role in CONTAINERS for act in REACH[role]}
    for role in Role:
        whole = {Act.BACKUP, Act.READ_BUNDLE, Act.SIGN_DOSSIER} & REACH[role].keys()
        assert bool(whole) == (role is Role.READER)
    assert Act.APPEND not in REACH[Role.OPERATOR]


BODIES: dict[Act, tuple[str, str, bytes]] = {
    Act.SPEAK: ("GET", "/v1/speaker", b""),
    Act.NEXT_SEQ: ("GET", "/v1/ledger/streams/s", b""),
    Act.READ_ENTRIES: ("GET", "/v1/ledger/entries?start=0&end=1", b""),
    Act.FIND: ("GET", "/v1/ledger/find?id=x", b""),
    Act.RECEIPT: ("GET", "/v1/ledger/receipt?id=x", b""),
    Act.READ_BUNDLE: ("GET", "/v1/ledger/tile/entries/000.p/1", b""),
    Act.PUT_BLOB: ("PUT", f"/v1/blobs/{hashlib.sha256(sealed()).hexdigest()}", sealed()),
    Act.GET_BLOB: ("GET", f"/v1/blobs/{'0' * 64}?entry=0", b""),
    Act.LIST_KEYSETS: ("GET", "/v1/keysets/credit", b""),
    Act.GET_KEYSET: ("GET", "/v1/keysets/credit/journal", b""),
    Act.CREATE_KEYSET: ("PUT", "/v1/keysets/credit/journal", b"{}"),
    Act.DESTROY_KEYSET: ("DELETE", "/v1/keysets/credit/journal", b""),
    Act.LIST_REFS: ("GET", "/v1/refs/credit", b""),
    Act.GET_REF: ("GET", "/v1/refs/credit/retention", b""),
    Act.PUT_REF: ("PUT", "/v1/refs/credit/retention", b"{}"),
    Act.LIST_STATES: ("GET", "/v1/states/credit", b""),
    Act.GET_STATE: ("GET", "/v1/states/credit/counts.g.a", b""),
    Act.PUT_STATE: ("PUT", "/v1/states/credit/counts.g.a", sealed()),
    Act.BACKUP: ("GET", "/v1/backup", b""),
    Act.SIGN_DOSSIER: ("POST", f"/v1/dossiers/credit/{'0' * 64}", b""),
}


@pytest.mark.parametrize("role", list(Role))
def test_what_has_no_line_is_403_and_counted(bed: Bed, role: Role) -> None:
    """All routes, as every role: what its line hasn't is refused, before anything is looked at or changed."""
    token = bearer_token(ROOT, "default", ARCHIVE if role is Role.READER else "credit", role)
    size = bed.archive.ledger.size
    refused = 0
    for act, (method, path, body) in BODIES.items():
        name = path.split("?")[0].split("/")[4] if act.name.endswith(("_KEYSET", "_REF", "_STATE")) else ""
        names = REACH[role].get(act)
        if names is not None and (not name or Speaker("credit", role).may(act, name)):
            continue
        answer = asked(bed, token, method, path, body)
        assert answer.status_code == 403, (act, answer.text)
        assert answer.json()["reason"] == "act", act
        assert "which may not" in answer.json()["error"]
        refused += 1
    assert refused >= 2
    assert bed.archive.ledger.size == size
    assert not list((bed.root / "blobs").glob("[0-9a-f][0-9a-f]/*"))
    text = asked(bed, "", "GET", "/metrics").text
    counted = [line for line in text.splitlines() if line.startswith("governed_archive_refused_total{")]
    assert sum(float(line.rpartition(" ")[2]) for line in counted if f'role="{role}"' in line) == refused


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.AUDITOR])
@pytest.mark.parametrize("type", ["verdict", "key", "review", "prediction"])
def test_only_the_auditor_ships_what_is_judged_and_decided(bed: Bed, role: Role, type: str) -> None:
    token = bearer_token(ROOT, "default", ARCHIVE if role is Role.READER else "credit", role)
    body = msgspec.msgpack.encode(AppendRequest("server-0", 0, [leaf("x", type)]))
    answer = asked(bed, token, "POST", "/v1/ledger/entries", body)
    assert (answer.status_code, bed.archive.ledger.size) == (403, 0)
    assert answer.json()["reason"] == ("type" if role in (Role.TRAINER, Role.IMPORTER) else "act")


@pytest.mark.parametrize("type", ["key", "artefact", "gates", "training", "dataset"])
def test_an_auditor_writes_nothing_of_a_training_and_no_key_event(bed: Bed, type: str) -> None:
    with pytest.raises(Refused, match=f"entry 0 is of type {type}, which the token of credit .auditor. may not write"):
        client(bed, Role.AUDITOR).append("auditor-0", [leaf("x", type)])


@pytest.mark.parametrize("type", ["received", "erasure", "loss", "ref", "state", DELETION])
def test_what_the_archive_says_of_itself_no_role_says(bed: Bed, type: str) -> None:
    for role in (Role.AUDITOR, Role.TRAINER):
        with pytest.raises(Refused, match="type must be one of"):
            client(bed, role).append("auditor-0", [leaf("x", type)])


def test_keysets_references_and_states_are_the_roles_by_name(
    bed: Bed, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("keys")
    Keyring(MODEL_KEK, DirectoryStore(folder)).keyset("artefact")
    document = (folder / "artefact.keyset.json").read_bytes()
    trainer, server = client(bed, Role.TRAINER), client(bed, Role.SERVER)
    assert trainer.keysets().create("artefact", document) == document
    assert client(bed, Role.FETCH).keysets().get("artefact") == document
    for refused, what in (
        (lambda: server.keysets().get("artefact"), "read keyset artefact"),
        (lambda: server.keysets().create("data", document), "create keyset data"),
        (lambda: server.keysets().replace("journal", document, document), "replace keyset"),
        (lambda: trainer.keysets().get("journal"), "read keyset journal"),
        (lambda: trainer.put_ref("retention", {"payloads": 1}), "set reference retention"),
        (lambda: client(bed, Role.AUDITOR).put_ref("artefact-1", {}), "set reference artefact-1"),
        (lambda: client(bed, Role.AUDITOR).put_state("other", sealed()), "replace state other"),
        (lambda: client(bed, Role.AUDITOR).keysets().destroy("artefact", b"{}"), "destroy keyset"),
        (lambda: client(bed, Role.FETCH).ref("training-1"), "read reference training-1"),
    ):
        with pytest.raises(Refused, match=f"may not {what}") as caught:
            refused()
        assert caught.value.status == 403
    client(bed, Role.OPERATOR).keysets().destroy("artefact", b"{}")


# -- another model's ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.VERIFIER, None])
def test_entries_of_others_are_hidden(bed: Bed, role: Role | None) -> None:
    bed.client("other").append("s", [leaf("theirs", model="other")])
    bed.client().append("s", [leaf("mine")])
    bed.archive._note_alone(ARCHIVE, "key", "signer", "", {})
    mine = client(bed, role) if role else bed.client()
    assert mine.entries(0, 9) == [b"null", leaf("mine"), b"null"]
    assert mine.find(id="theirs") == []
    with pytest.raises(Refused, match="what is other's needs the token of other"):
        mine.find(model="other")
    with pytest.raises(ArchiveError, match="entry 0 is another model's: the whole log needs the reader's token"):
        list(UrlSource(mine).leaves(3))
    reader = client(bed, Role.READER, ARCHIVE)
    assert len([e for e in reader.entries(0, 9) if e != b"null"]) == 3


def test_a_blob_is_read_by_what_of_its_model_names_it(bed: Bed) -> None:
    auditor, trainer = client(bed, Role.AUDITOR), client(bed, Role.TRAINER)
    theirs = client(bed, Role.AUDITOR, "other").put_blob(sealed(b"theirs"))
    client(bed, Role.AUDITOR, "other").append("s", [leaf("a", model="other", blob=theirs)])
    mine = auditor.put_blob(sealed(b"mine"))
    auditor.append("s", [leaf("b", blob=mine)])
    trainer.put_ref("artefact-1", {"blob": mine})
    trainer.put_ref("training-1", {"artefact": {"blob": mine, "digest": "d"}})
    assert auditor.get_blob(mine, entry=1) == sealed(b"mine")
    assert client(bed, Role.FETCH).get_blob(mine, ref="artefact-1") == sealed(b"mine")
    assert trainer.has_blob(mine, ref="training-1")
    for digest, named in (
        (theirs, {}), (theirs, {"entry": 0}), (theirs, {"entry": 1}), (theirs, {"entry": 99}), (mine, {}),
        (theirs, {"ref": "artefact-1"}), (theirs, {"ref": "none"}), ("0" * 64, {"entry": 1}),
    ):  # fmt: skip
        with pytest.raises(Refused, match="names blob") as caught:
            client(bed, Role.OPERATOR).get_blob(digest, **named)
        assert caught.value.status == 403, "also of one that isn't there: nothing is told of what others have"
        assert caught.value.details["reason"] == "model"
    assert client(bed, Role.READER, ARCHIVE).get_blob(theirs) == sealed(b"theirs")
    assert asked(bed, bearer_token(ROOT, "default", "credit", Role.OPERATOR), "GET", f"/v1/blobs/{mine}?entry=x"
                 ).status_code == 400  # fmt: skip


# -- tokens ------------------------------------------------------------------------------------------------------------


TOKEN = bearer_token(ROOT, "default", "credit", Role.SERVER)
PROOF = TOKEN.rpartition("/")[2]


@pytest.mark.parametrize(
    "forged",
    [
        TOKEN[:-1],
        TOKEN + "0",
        TOKEN.upper(),
        TOKEN.replace("server", "auditor"),
        TOKEN.replace("credit", "other"),
        TOKEN.replace("server", "Server"),
        TOKEN.replace("server", "root"),
        TOKEN.replace("server", ""),
        f"credit//server/{PROOF}",
        f"credit/server/{PROOF}/{PROOF}",
        f"credit/server/auditor/{PROOF}",
        f"/server/{PROOF}",
        f"*/reader/{PROOF}",
        f"{PROOF}",
        "credit/server/",
        "credit/server",
        "//",
        "/" * 5000,
        "credit/server/" + "0" * 64,
        "credit/sérver/" + PROOF,
        "é" * 64,
        "credit/server\u00a0/" + PROOF,
        "crеdit/server/" + PROOF,
        bearer_token(ROOT, "elsewhere", "credit", Role.SERVER),
        bearer_token(b"r" * 32, "default", "credit", Role.SERVER),
        bearer_token(ROOT, "default", "credit", Role.READER),
        bearer_token(ROOT, "default", "*", Role.READER),
        bearer_token(ROOT, "default", ARCHIVE, Role.OPERATOR),
        bearer_token(ROOT, "default", "a/b", Role.SERVER),
        bearer_token(ROOT, "default", "..", Role.SERVER),
        bearer_token(ROOT, "default", "", Role.SERVER),
        bearer_token(ROOT, "default", "Credit", Role.SERVER),
        model_token(ROOT, "elsewhere", "credit"),
        model_token(ROOT, "default", ""),
        model_token(ROOT, "default", "credit/server"),
    ],
)
def test_a_forged_token_is_nobodys(bed: Bed, forged: str) -> None:
    """Whatever the header beside it names: a role's proof is no token of the older form of a model called M/ROLE."""
    for named in ("", "credit", "credit/server", "*", "other", forged.partition("/")[0]):
        headers = [(b"authorization", b"Bearer " + forged.encode()), (b"x-governed-model", named.encode())]
        with httpx.Client(base_url="http://archive", transport=bed.transport) as anyone:
            answer = anyone.get("/v1/speaker", headers=headers)
        assert answer.status_code == 401, (named, answer.text)
        assert answer.json()["reason"] == "token"


def test_a_token_is_of_the_model_that_it_names(bed: Bed) -> None:
    assert client(bed, Role.SERVER).speaker() == ("credit", "server")
    assert client(bed, Role.READER, ARCHIVE, named="credit").speaker() == (ARCHIVE, "reader")
    with pytest.raises(Refused, match="what is other's needs the token of other") as caught:
        client(bed, Role.SERVER, named="other").speaker()
    assert (caught.value.status, caught.value.details["reason"]) == (403, "model")
    assert asked(bed, TOKEN, "GET", "/v1/keysets/other/journal").status_code == 403
    assert asked(bed, TOKEN, "GET", "/v1/ledger/receipt?id=x&model=other").status_code == 403


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    tokens = Tokens(ROOT, "default")
    assert tokens.speaker(f"Bearer {TOKEN}") == ("credit", Role.SERVER)
    assert tokens.speaker(f"Bearer {model_token(ROOT, 'default', 'credit')}", ["credit"]) == ("credit", None)
    assert len(compared) == 2
    assert all(isinstance(a, bytes) and isinstance(b, bytes) for a, b in compared), "texts must be ASCII, bytes not"


def test_listing_what_others_have_is_refused(bed: Bed) -> None:
    for path in ("/v1/keysets/other", "/v1/refs/other", "/v1/states/other", "/v1/ledger/find?model=other"):
        token = bearer_token(ROOT, "default", "credit", Role.OPERATOR)
        assert asked(bed, token, "GET", path).status_code == 403
        assert asked(bed, "", "GET", path).status_code == 401


def test_head_asks_as_get_does(bed: Bed) -> None:
    for path in ("/v1/backup", "/v1/keysets/credit", "/v1/ledger/entries?start=0&end=1"):
        assert asked(bed, TOKEN, "HEAD", path).status_code == 403
        assert asked(bed, "", "HEAD", path).status_code == 401


# -- tokens of the older form ------------------------------------------------------------------------------------------


def test_tokens_of_the_older_form_end_a_week_after_the_first_start(tmp_path: Path) -> None:
    now = 1_767_225_600.0
    assert older_until(tmp_path, now) == now + OLDER_SECONDS == now + 7 * 86_400
    assert (tmp_path / ROLES_SINCE).read_text() == timestamp(now)
    assert older_until(tmp_path, now + 86_400.0) == now + OLDER_SECONDS, "of the first start, not of the last"
    (tmp_path / ROLES_SINCE).write_text(timestamp(now + 400 * 86_400.0))
    assert older_until(tmp_path, now) == now + OLDER_SECONDS, "a time ahead gives no more"
    for damaged in (b"", b"soon", b"\xff\xfe", b"0" * 5000):
        (tmp_path / ROLES_SINCE).write_bytes(damaged)
        assert older_until(tmp_path, now) == 0.0, "what is damaged gives none"


@pytest.mark.parametrize("name", ["credit", "*"])
def test_an_older_token_is_taken_until_then_and_counted(name: str) -> None:
    now = [100.0]
    tokens = Tokens(ROOT, "default", older_until=200.0, clock=lambda: now[0])
    old = f"Bearer {model_token(ROOT, 'default', name)}"
    assert tokens.speaker(old, ["credit"])
    assert tokens.speaker(old) == tokens.speaker(old, ["credit"]), "remembered by its bytes"
    assert tokens.older_taken == 3
    now[0] = 200.1
    with pytest.raises(Refused, match="of the older form, without a role, which was taken until 1970-01-01T00:03:20"):
        tokens.speaker(old, ["credit"])
    assert tokens.speaker(f"Bearer {TOKEN}") == ("credit", Role.SERVER)


def test_figures_tell_of_older_tokens(bed: Bed) -> None:
    bed.client().put_blob(sealed())
    text = asked(bed, "", "GET", "/metrics").text
    assert 'governed_archive_older_tokens{component="archive",namespace="default"} 1.0' in text
    assert "governed_archive_older_tokens_until_seconds" in text
    assert math.inf == Tokens(ROOT, "default").older_until


# -- times -------------------------------------------------------------------------------------------------------------

NOW = 1_767_225_600.0


def at(seconds: float, type: str = "prediction", id: str = "x") -> bytes:
    return leaf(id, type).replace(b"2026-01-01T00:00:00.000Z", timestamp(NOW + seconds).encode())


@pytest.mark.parametrize("type", sorted(EVENT_TYPES | {"prediction", "explanation"}))
def test_nothing_happens_ahead_of_now(bed: Bed, type: str) -> None:
    auditor = client(bed, Role.AUDITOR)
    with pytest.raises(Refused, match="more than 600 s ahead of the archive's clock") as caught:
        auditor.append("s", [at(600.001, type)])
    assert (caught.value.status, caught.value.details["reason"]) == (422, "time")
    assert auditor.append("s", [at(600.0, type)]) == 0


@pytest.mark.parametrize(
    ("role", "type"), [(Role.AUDITOR, "verdict"), (Role.TRAINER, "gates"), (Role.TRAINER, "artefact")]
)
def test_what_is_made_as_it_is_sent_is_never_old(bed: Bed, role: Role, type: str) -> None:
    with pytest.raises(Refused, match=f"a {type} claims 2025-12-31T22:59:59.999Z, more than 3600 s behind") as caught:
        client(bed, role).append("s", [at(-3600.001, type)])
    assert caught.value.details["reason"] == "time"
    assert client(bed, role).append("s", [at(-3600.0, type)]) == 0


def test_what_a_pod_that_was_cut_off_ships_later_is_taken_and_said_when(bed: Bed) -> None:
    auditor = client(bed, Role.AUDITOR)
    entries = [at(-5 * 86_400.0, id="a"), at(-4 * 86_400.0, "label", id="b"), at(0.0, id="c")]
    assert auditor.append("server-0", entries) == 1
    (said,) = auditor.find(type="received")
    assert (said.index, said.fields()["time"], said.fields()["id"]) == (0, timestamp(NOW), "server-0")
    assert said.fields()["summary"] == {
        "stream": "server-0", "first": 0, "entries": 3, "late": 2, "oldest": timestamp(NOW - 5 * 86_400.0),
        "newest": timestamp(NOW - 4 * 86_400.0),
    }  # fmt: skip
    auditor.append_batch("server-0", 0, entries)
    assert len(auditor.find(type="received")) == 1, "sent again after a lost answer, it came when it came"
    auditor.append("server-0", [at(-3600.0, id="d")])
    assert len(auditor.find(type="received")) == 1


@pytest.mark.parametrize("claimed", ["", "now", "2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000+00:00",
                                     "٢٠٢٦-٠١-٠١T٠٠:٠٠:٠٠.٠٠٠Z", "0000-00-00T00:00:00.000Z0", "9" * 9999])  # fmt: skip
def test_what_is_no_time_is_refused(bed: Bed, claimed: str) -> None:
    entry = leaf("x").replace(b"2026-01-01T00:00:00.000Z", claimed.encode())
    with pytest.raises(Refused, match="time must be RFC 3339") as caught:
        client(bed, Role.AUDITOR).append("s", [entry])
    assert len(str(caught.value)) < 300
    assert bed.archive.ledger.size == 0


def test_what_was_taken_is_answered_again_whenever_it_comes(tmp_path: Path) -> None:
    """Its answer was lost, and the archive was away for hours: it isn't too old now."""
    now = [NOW]
    with closing(Bed(tmp_path, lambda: now[0])) as bed:
        auditor, verdict = client(bed, Role.AUDITOR), at(0.0, "verdict")
        assert auditor.append_batch("auditor-0", 0, [verdict]).first_index == 0
        now[0] += 30 * 86_400.0
        assert auditor.append_batch("auditor-0", 0, [verdict]).first_index == 0
        with pytest.raises(Refused, match="behind"):
            auditor.append_batch("auditor-0", 1, [verdict])
        assert bed.archive.ledger.size == 1


@pytest.mark.parametrize("hours", [2, 30 * 24])
def test_a_clock_of_the_archive_that_jumps_ahead_refuses_no_verdict(tmp_path: Path, hours: int) -> None:
    """The pods' clocks are right: what they say stands in the ledger, with when it came, and not as dead letters."""
    now, passed = [NOW], [0.0]
    with closing(Bed(tmp_path, lambda: now[0])) as bed:
        bed.archive.pace = Pace(lambda: passed[0])
        bed.archive.pace.lag(now[0])
        bed.archive.sweep()
        auditor = client(bed, Role.AUDITOR)
        now[0] += hours * 3600.0
        assert auditor.append("auditor-0", [at(0.0, "verdict")]) == 1
        (said,) = auditor.find(type="received")
        assert said.fields()["summary"]["oldest"] == timestamp(NOW)
        passed[0] += 5 * 3600.0
        now[0] += 5 * 3600.0
        bed.archive.sweep()
        assert auditor.append("auditor-0", [at(5 * 3600.0, "verdict")]), "it stays wrong for hours"
        with pytest.raises(Refused, match="behind"):
            auditor.append("auditor-0", [at(5 * 3600.0 - 3600.001, "verdict")])
        now[0] -= hours * 3600.0
        with pytest.raises(Refused, match="behind"):
            auditor.append("auditor-0", [at(5 * 3600.0 - 3600.001, "verdict")])


def test_the_clock_of_tokens_is_the_machines() -> None:
    assert abs(Tokens(ROOT, "default")._clock() - time.time()) < 5


def test_the_reader_has_a_dossier_signed_by_the_log_s_key(bed: Bed) -> None:
    reader = client(bed, Role.READER, ARCHIVE)
    note = reader.signed_dossier("credit", "ab" * 32)
    open_dossier(note, Verifier.parse(reader.vkey()), "credit", "ab" * 32)
    for model, digest in (("credit", "AB" * 32), ("credit", "ab"), ("no model", "ab" * 32)):
        with pytest.raises(Refused) as refused:
            reader.signed_dossier(model, digest)
        assert refused.value.status == 400
