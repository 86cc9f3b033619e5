"""`governed console` beside a model that serves, as a person's browser reads it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import httpx

from support.waiting import eventually

from .conftest import GOVERNED, Served

__all__ = ["console_shows"]


def console_shows(served: Served, id: str) -> None:
    """The model and, with its proof, the decision ``id``, which is in the ledger."""
    key = served.workdir.name
    with _console(served) as browser:
        home = browser.get("/", headers={"accept-language": "zh"})
        assert home.status_code == 200
        assert "服务中" in home.text
        model = browser.get(f"/models/{key}")
        assert "rowIndependence" in model.text
        decision = f"/decisions/{quote(id)}?model={key}"
        eventually(
            lambda: browser.get(decision).text,
            lambda text: "Inclusion proof of entry" in text and "department" in text,
            within=400,
            what="the decision with its proof",
        )
        clauses = eventually(
            lambda: browser.get("/clauses").text, lambda text: "no evidence" in text, within=400, what="clauses"
        )
        assert "Traceback" not in clauses
        assert browser.post("/").status_code == 405


@contextmanager
def _console(served: Served) -> Iterator[httpx.Client]:
    words = [*GOVERNED, "console", "--below", str(served.workdir.parent), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[0]
            with httpx.Client(base_url=url, trust_env=False, timeout=60) as browser:
                yield browser
        finally:
            process.terminate()
            process.wait(60)
