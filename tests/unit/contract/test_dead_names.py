"""No name of the product is used by tests alone, or by nobody; what a framework calls is listed, as long as it is
there."""

from pathlib import Path

import pytest

from support.dead_names import dead

ROOT = Path(__file__).parents[3]
PRODUCT = ("crds/governed_api", "operator/governed", "operator/governed_operator", "serving_image/governed_serving")

CALLED_FROM_OUTSIDE = {
    "operator/governed/client.py::_Bearer.auth_flow": "httpx.Auth",
    "operator/governed_operator/cli/__init__.py::plugin": "kubectl, by the program kubectl-governed",
    "crds/governed_api/schema.py::_Dumper.ignore_aliases": "yaml.Dumper",
    "operator/governed_operator/local/plain_console.py::_Escaping.process_renderables": "rich.console.RenderHook",
    "operator/governed_operator/local/yaml_writing.py::_Dumper.ignore_aliases": "yaml.Dumper",
    "operator/governed_operator/loop/kopf_storage.py::NoProgress.purge": "kopf.ProgressStorage",
    "serving_image/governed_serving/explainer/engines/alibi_worker.py::_Masking.set_text": "alibi.AnchorText",
    "serving_image/governed_serving/explainer/engines/captum_worker.py::Network.forward": "torch.nn.Module",
    "serving_image/governed_serving/hosting/host.py::_Server.capture_signals": "uvicorn.Server",
    "serving_image/governed_serving/hosting/connection.py::BoundedConnection.connection_lost": "asyncio.Protocol",
    "serving_image/governed_serving/hosting/connection.py::BoundedConnection.on_header": "httptools",
    "serving_image/governed_serving/hosting/connection.py::BoundedConnection.on_message_complete": "httptools",
    "serving_image/governed_serving/hosting/connection.py::BoundedConnection.on_response_complete": "uvicorn",
    "serving_image/governed_serving/hosting/connection.py::BoundedConnection.on_body": "httptools",
    "serving_image/governed_serving/hosting/connection.py::BoundedConnection.on_headers_complete": "httptools",
    "serving_image/governed_serving/hosting/connection.py::BoundedConnection._start_asgi_task": "uvicorn",
    "serving_image/governed_serving/hosting/connection.py::BoundedConnection.pause_writing": "asyncio.Protocol",
    "serving_image/governed_serving/hosting/connection.py::BoundedConnection.resume_writing": "asyncio.Protocol",
    **{
        f"serving_image/governed_serving/trainer/networks.py::{name}.forward": "torch.nn.Module"
        for name in ("TextMean", "Attention", "Block", "TextEncoder", "Network")
    },
    **{
        f"serving_image/governed_serving/server/rpc/service.py::RpcServer.{name}": "by name, from the service's descriptor"  # noqa: E501
        for name in (
            "_server_live",
            "_server_ready",
            "_model_ready",
            "_server_metadata",
            "_model_metadata",
        )
    },
    **{
        f"serving_image/governed_serving/server/window_storage.py::WindowStorage.{name}": "limits.storage"
        for name in (
            "get_sliding_window",
            "clear_sliding_window",
            "base_exceptions",
            "incr",
        )
    },
}
"""Name → who calls it."""

SERVING = "serving_image/governed_serving"
PENDING = {
    f"{SERVING}/privacy/actions.py::unmask": "issue 5: a command that turns tokens back for who may",
    f"{SERVING}/crypto/keyring.py::Keyring.destroy_key": "one retired key; an erasure destroys a keyset",
}
"""Known to be dead, and whose task it is to wire or delete it. Delete the line with the name."""


def test_nothing_in_the_product_is_dead() -> None:
    found = {d.key: d.line for d in dead(ROOT, PRODUCT)}
    allowed = CALLED_FROM_OUTSIDE | PENDING
    new = [f"{key} (line {line})" for key, line in found.items() if key not in allowed]
    assert not new, f"wire to what a user expects, or delete: {', '.join(new)}"
    gone = sorted(allowed.keys() - found.keys())
    assert not gone, f"used now, or gone: take from the list in this file: {', '.join(gone)}"


def found_in(folder: Path, **files: str) -> set[str]:
    for name, source in files.items():
        (folder / f"{name}.py").write_text(source)
    return {d.key for d in dead(folder, ["."])}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f(): ...", {"f"}),
        ("def f(): ...\nf()", set()),
        ("def f(n):\n    return f(n - 1)", {"f"}),  # itself alone
        ("__all__ = ['f']\ndef f(): ...", {"f"}),  # exported to nobody
        ("class A:\n    def m(self): ...\nA()", {"A.m"}),
        ("class A:\n    @property\n    def m(self): ...\nprint(A().m)", set()),
        ("class A:\n    @property\n    def m(self): ...\nA()", {"A.m"}),
        ("class P(Protocol):\n    def m(self): ...\ndef g(p: P): ...\ng(1)", set()),
        ("class A:\n    def __len__(self): ...\nA()", set()),
        ("@app.get('/')\ndef route(): ...\napp = 1", set()),
        ("LIMIT = 3", {"LIMIT"}),
        ("LIMIT: int = 3\nprint(LIMIT)", set()),
        ("class A: ...\ndef g(a: 'list[A]'): ...\ng(1)", set()),
        ("def f(): ...\ngetattr(object, 'f')", set()),
        ("def f(): ...\nprint('f')", {"f"}),  # a word is no use
        ("if True:\n    def f(): ...\nelse:\n    def g(): ...", {"f", "g"}),
    ],
)
def test_what_is_dead(tmp_path: Path, source: str, names: set[str]) -> None:
    assert found_in(tmp_path, m=source) == {f"m.py::{name}" for name in names}


def test_an_import_is_no_use_and_an_alias_is_one(tmp_path: Path) -> None:
    assert found_in(tmp_path, a="def f(): ...", b="from a import f\n__all__ = ['f']") == {"a.py::f"}
    assert found_in(tmp_path, a="def f(): ...", b="from a import f as g\ng()") == set()
