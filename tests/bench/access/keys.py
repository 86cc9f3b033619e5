"""API keys and tokens against no authentication, in one run; 100,000 callers against a few."""

import argparse
import hashlib
import hmac
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import contenders
import forms
from contenders import Contender
from joserfc import jwt
from joserfc.jwk import ECKey, Key, RSAKey

from governed_api.callers import open_callers
from governed_api.token_identity import IssuerSource
from governed_serving.access.directory import Directory
from governed_serving.pod_token import PodToken, PodTokens
from support.ports import free_block
from unit.server.tabular_model import write_artefact

PATH = "/v2/models/credit/infer"
LOAD = Path(contenders.__file__).parent / "load.py"
CONNECTIONS = 16
SECRET = "5e" * 32
FEW = 10
SIGNING: dict[str, Key] = {
    "ES256": ECKey.generate_key("P-256", {"kid": "e"}), "RS256": RSAKey.generate_key(2048, {"kid": "r"}),
}  # fmt: skip
JWKS = json.dumps({"keys": [one.as_dict(private=False) for one in SIGNING.values()]})
SOURCE = IssuerSource(issuer="https://idp.example", audience="credit", jwks=JWKS)


def token(algorithm: str, number: int = 0) -> str:
    """Of about a kilobyte, as issuers make them."""
    claims = {"iss": SOURCE.issuer, "aud": "credit", "sub": "app", "exp": int(time.time()) + 3600, "jti": str(number)}
    claims["groups"] = [f"a-group-of-people-{group}" for group in range(16)]
    one = SIGNING[algorithm]
    return str(jwt.encode({"alg": algorithm, "kid": one.kid}, claims, one))


def key(number: int) -> tuple[str, str]:
    """(name, secret) of an API key."""
    name = "".join("abcdefghijklmnopqrstuvwxyz234567"[number >> (5 * place) & 31] for place in range(16))
    return name, hashlib.sha256(str(number).encode()).hexdigest()[:43]


def shown(number: int) -> str:
    """The key as a caller sends it."""
    return "gmk_{}_{}".format(*key(number))


def document(callers: int, sequence: int, *, without: int = -1) -> bytes:
    """Sealed, of ``callers`` with a key each, but ``without``."""
    made = []
    for number in range(callers):
        name, secret = key(number)
        kept = {"id": name, "sha256": hashlib.sha256(secret.encode()).hexdigest()}
        made.append({"name": f"team-{number}", "keys": [] if number == without else [kept], "roles": ["call"]})
    of_tokens = {"name": "by-token", "tokens": [{"issuer": SOURCE.id, "subject": "app"}], "roles": ["call"]}
    said = {"issuers": [SOURCE.given().plain()], "callers": [*made, of_tokens]}
    whole = {"namespace": "default", "model": "credit", "sequence": sequence, **said}
    content = json.dumps(whole, separators=(",", ":")).encode()
    tag = hmac.new(bytes.fromhex(SECRET), b"governed-callers-v1\n" + content, hashlib.sha256).hexdigest()
    return tag.encode() + b"\n" + content


def with_keys(folder: Path, port: int, callers: int, name: str) -> Contender:
    """The governed server that asks who calls."""
    made = contenders.governed(folder, port)
    spec = json.loads((folder / "spec.json").read_bytes())
    spec["spec"]["access"] = {"authentication": "Required"}
    (folder / "spec.json").write_text(json.dumps(spec))
    (folder / "callers.json").write_bytes(document(callers, 1))
    (folder / "callers-key").write_text(SECRET)
    (folder / "tokens").mkdir()
    for one in PodTokens._fields:
        (folder / "tokens" / one).write_bytes(PodToken.draw())
    made.name = name
    made.env |= {
        "GOVERNED_CALLERS": f"{folder}/callers.json",
        "GOVERNED_CALLERS_KEY_FILE": f"{folder}/callers-key",
        "GOVERNED_POD_TOKENS": f"{folder}/tokens",
    }
    return made


def turn(one: Contender, body: Path, header: str, seconds: float) -> float:
    """Requests per CPU-second of one turn. Raises RuntimeError when an answer was not 200."""
    before = one.cpu_seconds()
    words = [str(one.port), PATH, str(body), str(CONNECTIONS), str(seconds), header]
    out = subprocess.run(["taskset", "-c", "1", sys.executable, str(LOAD), *words], check=True, capture_output=True)
    answers, errors = json.loads(out.stdout)
    if errors:
        raise RuntimeError(f"{one.name}: expected answers alone, found {errors} errors beside {answers}")
    return float(answers / max(one.cpu_seconds() - before, 1e-9))


def asked(connection: http.client.HTTPConnection, body: bytes, headers: dict[str, str]) -> tuple[int, float]:
    """(status, seconds) of one request."""
    began = time.perf_counter()
    connection.request("POST", PATH, body, headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status, time.perf_counter() - began


def medians(made: list[tuple[Contender, dict[str, str]]], body: bytes, requests: int) -> list[float]:
    """Seconds of one row, the contenders in turn."""
    connections = [(http.client.HTTPConnection("127.0.0.1", one.port), headers) for one, headers in made]
    times: list[list[float]] = [[] for _ in made]
    for number in range(requests):
        for taken, (connection, headers) in zip(times, connections, strict=True):
            status, seconds = asked(connection, body, headers)
            assert status == 200, status
            if number >= requests // 10:
                taken.append(seconds)
    return [statistics.median(taken) for taken in times]


def revoked(one: Contender, folder: Path, callers: int, body: bytes) -> float:
    """Seconds from the new document's writing until a key that it doesn't have opens nothing, over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", one.port)
    headers = {"x-api-key": shown(callers - 1)}
    assert asked(connection, body, headers)[0] == 200
    (folder / "next.json").write_bytes(document(callers, 2, without=callers - 1))
    began = time.monotonic()
    (folder / "next.json").replace(folder / "callers.json")
    while asked(connection, body, headers)[0] == 200:
        time.sleep(0.005)
    return time.monotonic() - began


def resident() -> float:
    """MiB of this process."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def held(callers: int) -> None:
    """In a process of its own: print (MiB that a document takes, seconds to read it, seconds of a look-up)."""
    path = Path(sys.argv[3])
    Directory(open_callers(path.read_bytes(), SECRET), "default", "credit")  # so that modules are loaded
    before, began = resident(), time.perf_counter()
    directory = Directory(open_callers(Path(sys.argv[4]).read_bytes(), SECRET), "default", "credit")
    read = time.perf_counter() - began
    wanted = [shown(number * 7919 % callers) for number in range(20_000)]
    began = time.perf_counter()
    for text in wanted:
        directory.find(text, 0.0)
    print(json.dumps([resident() - before, read, (time.perf_counter() - began) / len(wanted)]))


def verified() -> None:
    """Print what a token costs when it is first seen, and afterwards."""
    directory = Directory(open_callers(document(FEW, 1), SECRET), "default", "credit")
    print(f"{'token':>10}{'bytes':>8}{'first µs':>10}{'then µs':>9}")
    for algorithm in SIGNING:
        texts, times = [token(algorithm, number) for number in range(500)], []
        for _ in range(2):
            began = time.perf_counter()
            for text in texts:
                directory.find(text, time.time())
            times.append((time.perf_counter() - began) / len(texts) * 1e6)
        print(f"{algorithm:>10}{len(texts[0]):>8}{times[0]:>10.1f}{times[1]:>9.2f}")


def sizes(folder: Path, callers: int) -> None:
    """Print what few and many callers take."""
    (folder / "few").write_bytes(document(FEW, 1))
    print(f"{'callers':>10}{'MiB':>8}{'read s':>9}{'look-up µs':>12}")
    for number in (FEW, callers):
        (folder / "many").write_bytes(document(number, 1))
        command = [sys.executable, __file__, "--held", str(number), str(folder / "few"), str(folder / "many")]
        mib, read, look_up = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        print(f"{number:>10,}{mib:>8.1f}{read:>9.2f}{look_up * 1e6:>12.2f}")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12, help="times that each has its turn")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one turn")
    parser.add_argument("--callers", type=int, default=100_000, help="in the larger document")
    parser.add_argument("--smoke", action="store_true", help="seconds, to see that it runs: no numbers to keep")
    args = parser.parse_args()
    if args.smoke:
        args.rounds, args.seconds, args.callers = 1, 0.1, 1000
    port = free_block(4)
    with tempfile.TemporaryDirectory() as folder_name:
        folders = [Path(folder_name) / part for part in ("off", "keys", "tokens")]
        for folder in folders:
            folder.mkdir()
            write_artefact(folder / "artefact")
        off = contenders.governed(folders[0], port)
        keys = with_keys(folders[1], port + 1, args.callers, "ours, keys")
        tokens = with_keys(folders[2], port + 2, args.callers, "ours, tokens")
        made = [
            (off, dict[str, str]()), (keys, {"x-api-key": shown(2)}),
            (tokens, {"authorization": f"Bearer {token('RS256')}"}),
        ]  # fmt: skip
        body = forms.bodies(1)["tensors"]
        (folders[0] / "body.json").write_bytes(body)
        off.name = "ours, no authentication"
        bearer = f"authorization: Bearer {token('RS256')}"
        headers = [f"x-api-key: {shown(1)}", f"x-api-key: {shown(1)}", bearer]
        try:
            for (one, _), folder in zip(made, folders, strict=True):
                one.start(folder / "log")
            rates = []
            for number in range(args.rounds + 1):
                turns = zip(made, headers, strict=True)
                found = [turn(one, folders[0] / "body.json", header, args.seconds) for (one, _), header in turns]
                if number:  # the first round warms up
                    rates.append(found)
            times = medians(made, body, 100 if args.smoke else 3000)
            print(f"\n{'one row, V2 JSON':30}{'requests/CPU-s':>16}{'p50 ms':>9}{'RSS MiB':>9}")
            for place, (one, _) in enumerate(made):
                rate = statistics.median(found[place] for found in rates)
                print(f"{one.name:30}{rate:>16,.0f}{times[place] * 1e3:>9.3f}{one.resident_mib():>9.0f}")
            for place, name in ((1, "keys"), (2, "tokens")):
                ratio = statistics.median(found[place] / found[0] for found in rates)
                print(f"{name} ÷ none: {ratio:.3f}; p50 + {(times[place] - times[0]) * 1e3:.3f} ms")
            took = revoked(keys, folders[1], args.callers, body)
            print(f"of {args.callers:,} callers one is revoked: effective after {took:.2f} s")
            sizes(Path(folder_name), args.callers)
            verified()
        finally:
            for one, _ in made:
                one.stop()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--held"]:
        held(int(sys.argv[2]))
    else:
        main()
