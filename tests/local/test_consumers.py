"""A model that asks who calls, as a person runs it: a key is drawn while it runs, used, and revoked."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from governed import Client, Refused
from support.consumer_manifests import consumer as manifest
from support.oidc_issuer import issuing
from support.waiting import eventually

from .conftest import SAMPLES, Served, governed, start

WITHIN = 30.0
"""Seconds, on a machine that does much else; it is in force within one."""
BODY = {
    "inputs": [
        {"name": "urgency", "shape": [1, 1], "datatype": "BYTES", "data": ["high"]},
        {"name": "length", "shape": [1, 1], "datatype": "FP32", "data": [120.0]},
    ]
}


@pytest.fixture(scope="module")
def tickets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("tickets")
    served = start(SAMPLES / "consumers.yaml", folder / "run", folder / "log", "tickets")
    yield served
    if served.process.poll() is None:
        assert served.stop() == 0
    assert "3 of 3 ModelConsumers may call tickets" in (folder / "log").read_text()


def consumer(served: Served, *words: str) -> subprocess.CompletedProcess[str]:
    done = governed("consumer", *words, "--workdir", served.workdir)
    assert done.returncode == 0, done.stderr
    return done


def asked(served: Served, key: str = "") -> int:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.post(f"{served.url}/infer", json=BODY, headers=headers, trust_env=False, timeout=60).status_code


def test_a_key_works_from_when_it_is_drawn_until_it_is_revoked(tickets: Served, tmp_path: Path) -> None:
    assert asked(tickets) == 401
    key = consumer(tickets, "create", "app", "--models", "tickets").stdout.strip()
    eventually(lambda: asked(tickets, key), lambda status: status == 200, within=WITHIN)
    assert asked(tickets, key[:-1] + ("A" if key[-1] != "A" else "B")) == 401
    file = tmp_path / "key"
    file.write_text(f"{key}\n")
    url = tickets.url.partition("/v2")[0]
    asking = ("infer", "tickets", "urgency=high", "length=120", "--url", url, "--api-key-file", file)
    done = governed(*asking)
    assert done.returncode == 0, done.stderr
    with Client(url, api_key=key, timeout=240) as client:
        found = client.predict([{"urgency": "high", "length": 120}, {"urgency": "low", "length": 5.5}])
        assert [set(one.probabilities) for one in found] == [set(client.metadata()["parameters"]["classes"])] * 2
        assert found[0].outcome == json.loads(governed(*asking, "--json").stdout)["outputs"][1]["data"][0]
        assert client.receipt(found[0]).startswith("c2sp.org/tlog-proof@v1\n")
    with Client(url, model="tickets") as stranger, pytest.raises(Refused) as refused:
        stranger.predict({"urgency": "high", "length": 120})
    assert refused.value.status == 401
    second = consumer(tickets, "rotate", "app").stdout.strip()
    eventually(lambda: asked(tickets, second), lambda status: status == 200, within=WITHIN)
    assert asked(tickets, key) == 200
    consumer(tickets, "revoke", "app", "--key", key.split("_")[1])
    eventually(lambda: asked(tickets, key), lambda status: status == 401, within=WITHIN)
    assert asked(tickets, second) == 200
    consumer(tickets, "revoke", "app")
    eventually(lambda: asked(tickets, second), lambda status: status == 401, within=WITHIN)


def test_a_token_of_a_real_issuer_works_from_when_a_consumer_names_it(tickets: Served, tmp_path: Path) -> None:
    with issuing(tmp_path / "ca") as issuer:
        said = {"issuer": issuer.url, "audience": "tickets", "certificateAuthority": issuer.authority}
        named = manifest("by-token", apiKeys=[], models={"names": ["tickets"]}, oidc=said | {"subject": "app"})
        token = issuer.token()
        assert asked(tickets, token) == 401
        path = Path(tickets.workdir) / "consumers" / "by-token.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(named))
        eventually(lambda: asked(tickets, token), lambda status: status == 200, within=WITHIN)
        for other in (issuer.token(sub="other"), issuer.token(aud="chat"), issuer.token(exp=1), f"{token}A"):
            assert asked(tickets, other) == 401
        listed = consumer(tickets, "list").stdout
        assert f"by-token  in force  call  models: tickets\n    tokens of {issuer.url} for tickets: app" in listed
        path.write_text(yaml.safe_dump(manifest("by-token", **named["spec"], suspend=True)))
        eventually(lambda: asked(tickets, token), lambda status: status == 401, within=WITHIN)
        path.unlink()


def test_a_role_that_is_not_given_is_refused(tickets: Served) -> None:
    key = consumer(tickets, "create", "reader", "--models", "*", "--roles", "audit").stdout.strip()
    eventually(lambda: asked(tickets, key), lambda status: status == 403, within=WITHIN)


def test_a_bill_is_what_the_client_and_the_metrics_counted(tickets: Served, tmp_path: Path) -> None:
    keys = {name: consumer(tickets, "create", name, "--models", "tickets").stdout.strip() for name in ("red", "blue")}
    for key in keys.values():
        eventually(lambda key=key: asked(tickets, key), lambda status: status == 200, within=WITHIN)  # type: ignore[misc]
    for _ in range(5):
        assert asked(tickets, keys["red"]) == 200
    assert asked(tickets, keys["blue"][:-1]) == 401

    pseudonyms = dict[str, str]()

    def bill(*words: str) -> dict[str, int]:
        done = governed("usage", "tickets", "--workdir", tickets.workdir, "--json", *words)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        names = {caller: known["name"] for caller, known in told["names"].items()}
        pseudonyms.update((name, caller) for caller, name in names.items())
        return {names[one["caller"]]: one["units"]["requests"] for one in told["charges"] if one["caller"] in names}

    found = eventually(bill, lambda counted: counted.get("red") == 6 and counted.get("blue") == 1, within=WITHIN)
    assert bill("--consumer", "blue") == {"blue": found["blue"]}
    archive = next((Path(tickets.workdir) / "volumes").glob("*/ledger")).parent
    vkey, key = archive / "ledger" / "vkey", next((Path(tickets.workdir) / "secrets").glob("*archive*/kek"))
    bundle = tmp_path / "bundle.tar"
    words = [sys.executable, "-m", "governed_serving.archive", "export", archive, bundle, "--key-file", key]
    subprocess.run([str(word) for word in words], check=True, capture_output=True)
    (tmp_path / "elsewhere").mkdir()
    offline = governed(
        "usage", "tickets", "--archive", bundle, "--key-file", vkey, "--workdir", tmp_path / "elsewhere", "--csv"
    )
    assert offline.returncode == 0, offline.stderr
    rows = list(csv.DictReader(io.StringIO(offline.stdout)))
    requests = {row["SubAccountId"]: int(row["ConsumedQuantity"]) for row in rows if row["ConsumedUnit"] == "Requests"}
    assert {row["SubAccountName"] for row in rows} == {""}, "a customer sees pseudonyms"
    assert requests[pseudonyms["red"]] == 6
