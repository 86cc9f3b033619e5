"""A small witness: C2SP tlog-witness over HTTP, written from the specification alone, with the ways in which one can
misbehave.

It shares no code with the product: notes, trees and signatures are its own.
"""

import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def _sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _key_hash(name: str, kind: int, public: bytes) -> bytes:
    return _sha(name.encode() + b"\n" + bytes([kind]) + public)[:4]


def consistent(old: int, new: int, proof: list[bytes], old_root: bytes, new_root: bytes) -> bool:
    """RFC 6962, 2.1.2, by recursion over the range that the proof was made for."""

    def walk(m: int, n: int, whole: bool) -> tuple[bytes, bytes]:
        """(hash of the first m, hash of all n) leaves of this range, taking from the proof's end."""
        if m == n:
            if whole:
                return old_root, old_root
            node = proof.pop()
            return node, node
        split = 1 << ((n - 1).bit_length() - 1)
        if m <= split:
            right = proof.pop()
            first, left = walk(m, split, whole)
            return first, _sha(b"\x01" + left + right)
        left = proof.pop()
        first, right = walk(m - split, n - split, False)
        return _sha(b"\x01" + left + first), _sha(b"\x01" + left + right)

    proof = list(proof)
    try:
        found = walk(old, new, True)
    except IndexError:
        return False
    return not proof and found == (old_root, new_root)


@dataclass
class Known:
    """What it has of one log."""

    size: int
    root: bytes
    note: str


@dataclass
class Witness:
    """State per origin; ``fault``: how it misbehaves now."""

    name: str = "witness.example/w1"
    seed: bytes = bytes(range(1, 33))
    logs: dict[str, str] = field(default_factory=dict)
    """Verifier key by origin."""
    known: dict[str, Known] = field(default_factory=dict)
    fault: str = ""
    clock: int = 1_767_225_600
    url: str = ""
    refused: list[tuple[int, str]] = field(default_factory=list)
    """(status, request) of what it didn't cosign."""
    asked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    slow: threading.Event = field(default_factory=threading.Event)

    @property
    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @property
    def vkey(self) -> str:
        public = self._key.public_key().public_bytes_raw()
        shown = base64.b64encode(b"\x04" + public).decode()
        return f"{self.name}+{_key_hash(self.name, 4, public).hex()}+{shown}"

    def trusts(self, vkey: str) -> None:
        """From now on: the log whose key this is."""
        self.logs[vkey.split("+")[0]] = vkey.strip()

    def line(self, text: str) -> str:
        public = self._key.public_key().public_bytes_raw()
        signature = self._key.sign(f"cosignature/v1\ntime {self.clock}\n{text}".encode())
        blob = _key_hash(self.name, 4, public) + self.clock.to_bytes(8, "big") + signature
        return f"\u2014 {self.name} {base64.b64encode(blob).decode()}\n"

    def add_checkpoint(self, body: str) -> tuple[int, str, str]:
        """(status, content type, body)."""
        head, _, note = body.partition("\n\n")
        first, *lines = head.split("\n")
        text, _, signatures = note.rpartition("\n\n")
        text += "\n"
        origin, size_line, root_line, *_ = text.split("\n")
        old, size, root = int(first.removeprefix("old ")), int(size_line), base64.b64decode(root_line)
        if origin not in self.logs:
            return 404, "text/plain", "unknown log"
        if not self._signed(self.logs[origin], text, signatures):
            return 403, "text/plain", "not signed by the log"
        if old > size:
            return 400, "text/plain", "old size is beyond the checkpoint"
        kept = self.known.get(origin, Known(0, b"", ""))
        if old != kept.size:
            return 409, "text/x.tlog.size", f"{kept.size}\n"
        proof = [base64.b64decode(line) for line in lines]
        if (old == 0 and proof) or (old and not consistent(old, size, proof, kept.root, root)):
            return 422, "text/plain", "no consistency"
        line = self.line(text)
        self.known[origin] = Known(size, root, note + line)
        return 200, "text/plain", line

    def _signed(self, vkey: str, text: str, signatures: str) -> bool:
        name, key_hash, key = vkey.split("+", 2)
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key)[1:])
        for line in signatures.splitlines():
            _, who, encoded = line.split(" ")
            blob = base64.b64decode(encoded)
            if who == name and blob[:4].hex() == key_hash:
                try:
                    public.verify(blob[4:], text.encode())
                except InvalidSignature:
                    return False
                return True
        return False

    def answer(self, body: str) -> tuple[int, str, str]:
        """As its ``fault`` has it. Checking and remembering are one step."""
        with self.lock:
            self.asked += 1
            if self.fault == "garbage":
                return 200, "text/plain", "<html>\ud83d no cosignature</html>".encode("utf-8", "replace").decode()
            if self.fault == "huge":
                return 200, "text/plain", "\u2014 x " + "A" * (4 << 20) + "\n"
            if self.fault == "nothing":
                return 200, "text/plain", ""
            if self.fault == "redirect":
                return 302, "text/plain", ""
            if self.fault == "overflow":
                return 409, "text/x.tlog.size", "9" * 400 + "\n"
            if self.fault == "boast":
                return 409, "text/x.tlog.size", "1000000\n"
            if self.fault == "error":
                return 500, "text/plain", "out of order"
            answered = self.add_checkpoint(body)
        if answered[0] != 200:
            self.refused.append((answered[0], body))
        if self.fault == "other key" and answered[0] == 200:
            other = Witness(self.name, bytes(32))
            return 200, "text/plain", other.line(body.partition("\n\n")[2].rpartition("\n\n")[0] + "\n")
        if self.fault == "other text" and answered[0] == 200:
            return 200, "text/plain", self.line("another.example/log\n1\nAAAA\n")
        return answered


@contextmanager
def serving(witness: Witness) -> Iterator[Witness]:
    """``witness`` on a free port of this machine, its ``url`` set."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            if witness.fault == "slow":
                witness.slow.wait(60)
            if self.path != "/add-checkpoint":
                return self._send(404, "text/plain", "")
            return self._send(*witness.answer(body))

        def do_GET(self) -> None:
            kept = {f"/{_sha(o.encode()).hex()}/checkpoint": k.note for o, k in witness.known.items()}
            note = kept.get(self.path)
            return self._send(200 if note else 404, "text/plain", note or "")

        def _send(self, status: int, kind: str, text: str) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            if status == 302:
                self.send_header("location", f"{witness.url}/elsewhere")
            self.end_headers()
            try:
                self.wfile.write(data)
            except OSError:
                return  # whoever asked had heard enough

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    witness.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield witness
    finally:
        witness.slow.set()
        server.shutdown()
        thread.join()
        server.server_close()
