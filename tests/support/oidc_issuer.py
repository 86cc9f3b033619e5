"""A small OpenID Connect issuer over https on loopback: a discovery document and a JWK set, with faults on demand."""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from support.certificates import Authority

__all__ = ["Issuer", "issuing"]

DISCOVERY, KEYS = "/realms/staff/.well-known/openid-configuration", "/realms/staff/keys"


class Issuer:
    """``answer`` takes the place of both documents where it is set: it gets the handler. ``asked``: paths, in order."""

    def __init__(self, port: int, authority: Path) -> None:
        self.url, self.authority = f"https://localhost:{port}/realms/staff", authority.read_text()
        self.asked: list[str] = []
        self.answer: Callable[[BaseHTTPRequestHandler], None] | None = None
        self.keys: list[ECKey] = []
        self.rotate()

    def rotate(self, *, keep: bool = False) -> None:
        """Publish another key, beside the old ones or alone."""
        key = ECKey.generate_key("P-256", {"kid": f"k{time.monotonic_ns()}"})
        self.keys = [key, *self.keys] if keep else [key]

    def token(self, *, key: int = 0, **claims: Any) -> str:
        now = int(time.time())
        said = {"iss": self.url, "aud": "tickets", "sub": "app", "iat": now, "exp": now + 600, **claims}
        signing = self.keys[key]
        return str(jwt.encode({"alg": "ES256", "kid": signing.kid}, said, signing))

    def document(self, path: str) -> bytes | None:
        if path == KEYS:
            return json.dumps({"keys": [key.as_dict(private=False) for key in self.keys]}).encode()
        return json.dumps({"issuer": self.url, "jwks_uri": self.url + "/keys"}).encode() if path == DISCOVERY else None


@contextmanager
def issuing(folder: Path, hosts: tuple[str, ...] = ("localhost",)) -> Iterator[Issuer]:
    authority = Authority.create(folder)
    certificate, private = authority.issue("issuer", "issuer", hosts=hosts)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            if issuer.answer is not None:
                issuer.answer(self)
                return
            body = issuer.document(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.handle_error = True, lambda *_: None  # type: ignore[method-assign]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    issuer = Issuer(server.server_address[1], authority.certificate)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
