"""Read an API server over one kept connection: what a loop needs that would else start kubectl every second."""

import base64
import http.client
import json
import ssl
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml


class ApiReader:
    """GETs as the user of a kubeconfig's current context (client certificate). Raises OSError when there is no
    answer."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        context = next(c["context"] for c in config["contexts"] if c["name"] == config["current-context"])
        cluster = next(c["cluster"] for c in config["clusters"] if c["name"] == context["cluster"])
        user = next(u["user"] for u in config["users"] if u["name"] == context["user"])
        self._ssl = ssl.create_default_context(cadata=_text(cluster, "certificate-authority"))
        with tempfile.NamedTemporaryFile("w") as both:  # the ssl module takes client keys from files alone
            both.write(_text(user, "client-certificate") + "\n" + _text(user, "client-key"))
            both.flush()
            self._ssl.load_cert_chain(both.name)
        self._address = urlsplit(cluster["server"]).netloc
        self._connection: http.client.HTTPSConnection | None = None

    def get(self, path: str) -> Any:
        """The JSON at an API path."""
        connection = self._connection or http.client.HTTPSConnection(self._address, context=self._ssl, timeout=10)
        self._connection = None  # kept only when this call ends well
        try:
            connection.request("GET", path, headers={"Accept": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ConnectionError(f"GET {path}: {error}") from error
        self._connection = connection
        if answer.status != 200:
            raise ConnectionError(f"GET {path}: {answer.status} {body[:300]!r}")
        return json.loads(body)


def _text(entry: dict[str, str], key: str) -> str:
    inline = entry.get(f"{key}-data")
    return base64.b64decode(inline).decode() if inline else Path(entry[key]).read_text()
