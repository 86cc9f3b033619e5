"""How commands reach a model in a cluster: through ``kubectl``, with the caller's own kubeconfig and rights."""

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.json_reading import items, mappings
from governed_api.json_types import Json
from governed_api.names import ARCHIVE, GROUP, LABEL_MODEL, LABEL_TRACK, PLURAL, REPORT_PLURAL
from governed_api.roles import Role, bearer_token, token_key
from governed_operator.cli.fail import fail

if TYPE_CHECKING:
    from governed_api.resolved import ResolvedModel

__all__ = [
    "ClusterError",
    "ClusterModel",
    "Context",
    "Namespace",
    "here",
    "in_cluster",
    "kept",
    "models_in_cluster",
    "reached",
    "refuse_both",
]

Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace", "-n", help="The model serves in this namespace of a cluster, not here.", show_default=False
    ),
]
Context = Annotated[
    str | None,
    typer.Option(help="Context of the kubeconfig; the model serves in a cluster, not here.", show_default=False),
]
POD_TOKEN_FILE = f"{rt.MOUNT_POD_TOKENS}/auditor"
"""In the auditor's container."""
PATIENCE = 20.0
"""Seconds: for one answer of kubectl, and for a port to be forwarded."""
_LOOK = 0.05
"""Seconds between two looks at what kubectl has printed."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""What Kubernetes takes for a namespace, and no model's name is other: none of them is an option or a selector."""
_REPORTS = f"{REPORT_PLURAL}.{GROUP}"
_MODELS = f"{PLURAL}.{GROUP}"
_PREFIX = re.compile(r"\[[^/\]]*/([^/\]]+)/([^/\]]+)\] ?(.*)", re.DOTALL)
"""Of a line of kubectl logs --prefix: [pod/POD/CONTAINER] TEXT."""
_MOST_PODS = 64
"""Whose lines are asked for at once when they are followed."""
_FORWARDING = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+) -> ")


class ClusterError(Exception):
    """What kubectl said, or that there is none."""


@dataclass(frozen=True)
class ClusterModel:
    """A model that serves in a cluster. ``namespace``, ``context``: None, the kubeconfig's own."""

    name: str
    namespace: str | None = None
    context: str | None = None

    def resource(self) -> dict[str, Json]:
        """The GovernedModel as the API server has it. Raises ClusterError."""
        read = self._get(_MODELS, self.name)
        if read is None:
            raise ClusterError(f"no GovernedModel {self.name} in {self.place}: see kubectl get gmodel -A")
        return read

    def model(self) -> "ResolvedModel":
        """Raises ClusterError."""
        from governed_api.model import GovernedModel
        from governed_api.resolved import ResolvedModel

        try:
            return ResolvedModel.of(GovernedModel.model_validate(self.resource()))
        except ValueError as error:
            first = " ".join(str(error).split())[:300]
            raise ClusterError(
                f"GovernedModel {self.name} isn't of the version that this command knows: {first}"
            ) from error

    def report(self) -> dict[str, Json]:
        """The GovernanceReport; empty where there is none. Raises ClusterError."""
        return self._get(_REPORTS, self.name) or {}

    def archive_report(self) -> dict[str, Json]:
        """The archive's own report; empty where there is none. Raises ClusterError."""
        return self._get(_REPORTS, ARCHIVE) or {}

    def anchor(self) -> dict[str, Json]:
        """The archive's own report where it holds a checkpoint of the ledger, else empty. Raises ClusterError."""
        report = self.archive_report()
        return report if _at(report, "status", "archive", "checkpoint") else {}

    def reader_token(self) -> bytes:
        """Of whoever checks the whole log, made of the archive's root as the archive makes it. Raises ClusterError."""
        root = self.secret(object_names.ARCHIVE_KEYS, rt.ROOT_NAME)
        if root is None:
            raise ClusterError(f"no Secret {object_names.ARCHIVE_KEYS} in {self.place}: is there a model?")
        return bearer_token(root, self.namespace or self.model().namespace, ARCHIVE, Role.READER).encode()

    def secret(self, name: str, key: str) -> bytes | None:
        """A Secret's content; None where it isn't there. Raises ClusterError: among others, when it may not be read."""
        value = _at(self._get("secrets", name), "data", key)
        return base64.b64decode(value) if isinstance(value, str) else None

    def token(self) -> bytes:
        """Of whoever answers for the model. Raises ClusterError."""
        secret = object_names.operator_token(self.name)
        secret_read = self.secret(secret, token_key(Role.OPERATOR))
        if secret_read is None:
            raise ClusterError(f"no Secret {secret} in {self.place}: the operator makes it with the model")
        return secret_read

    @property
    def place(self) -> str:
        return f"namespace {self.namespace}" if self.namespace else "the kubeconfig's namespace"

    @contextmanager
    def forwarded(self, target: str, port: int) -> Iterator[str]:
        """Address on loopback of a port of ``target`` (``deployment/NAME``) while the block runs. Raises ClusterError:
        also for an error of the block once kubectl has ended, which is then its cause."""
        words = [*self._kubectl(), "port-forward", "--address", rt.LOOPBACK, target, f":{port}"]
        # Files: kubectl prints a line for each connection, and would stand still at a pipe that nobody empties.
        with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as said:
            process = subprocess.Popen(words, stdout=told, stderr=said)
            try:
                yield rt.on_this_machine(_local_port(process, told, said))
            except ClusterError:
                raise
            except Exception as error:
                if process.poll() is None:
                    raise
                raise ClusterError(f"kubectl port-forward ended: {_printed(said) or 'it said nothing'}") from error
            finally:
                process.terminate()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def pod(self) -> str:
        """A ready pod of the stable revision. Raises ClusterError."""
        labels = f"{LABEL_MODEL}={self.name},{LABEL_TRACK}={rt.TRACK_STABLE}"
        listed = self.kubectl_json("get", "pods", "-l", labels, "-o", "json") or {}
        for pod in items(listed.get("items")):
            if _at(pod, "metadata", "deletionTimestamp") is not None:
                continue  # it is ready still, and gone before it answers
            conditions = items(_at(pod, "status", "conditions"))
            if any((_at(c, "type"), _at(c, "status")) == ("Ready", "True") for c in conditions):
                return f"pod/{_at(pod, 'metadata', 'name')}"
        raise ClusterError(f"no pod of {self.name} is ready in {self.place}: see kubectl describe gmodel {self.name}")

    def pod_token(self, pod: str) -> str:
        """What the auditor's port of ``pod`` asks for. Raises ClusterError."""
        return self._said("exec", pod, "-c", "auditor", "--", "cat", POD_TOKEN_FILE).decode("ascii", "replace").strip()

    def log_lines(self, container: str | None, tail: int, follow: bool) -> Iterator[tuple[str, str, str]]:
        """("", POD/CONTAINER, text) of the model's pods. Raises ClusterError."""
        chosen = f"{LABEL_MODEL}={self.name}"
        words = [*self._kubectl(), "logs", "-l", chosen, "--all-containers", "--prefix", f"--tail={tail}"]
        words += ["--follow", f"--max-log-requests={_MOST_PODS * 4}"] if follow else []
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said)
            assert process.stdout is not None
            with process, process.stdout as lines:
                try:
                    for raw in lines:
                        line = _log_line(raw.decode(errors="replace").rstrip("\r\n"))
                        # kubectl's own --container ends at the first pod without one, such as the training's
                        if container is None or line[1].rpartition("/")[2] in (container, "kubectl"):
                            yield line
                    code = process.wait()
                finally:
                    process.terminate()
            if code > 0:
                raise ClusterError(f"kubectl logs: {_printed(said)}")
            if told := _printed(said):
                yield "", "kubectl", told

    def _get(self, kind: str, name: str) -> dict[str, Json] | None:
        return self.kubectl_json("get", kind, name, "-o", "json", "--ignore-not-found")

    def kubectl_json(self, *words: str, stdin: bytes = b"") -> dict[str, Json] | None:
        """What kubectl prints as JSON; None where it prints nothing. Raises ClusterError."""
        said = self._said(*words, stdin=stdin)
        try:
            answer = json.loads(said) if said.strip() else None
        except ValueError as error:
            raise ClusterError("kubectl: expected JSON, found something else") from error
        return answer if isinstance(answer, dict) else None

    def _said(self, *words: str, stdin: bytes = b"") -> bytes:
        command = [*self._kubectl(), *words]
        try:
            done = subprocess.run(command, check=False, capture_output=True, timeout=PATIENCE, input=stdin)
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"kubectl: expected an answer within {PATIENCE:g} s, found none") from error
        if done.returncode != 0:
            raise ClusterError(f"kubectl: {_words(done.stderr)}")
        return done.stdout

    def _kubectl(self) -> list[str]:
        program = shutil.which("kubectl")
        if program is None:
            raise ClusterError("--namespace and --context need kubectl on the PATH, and there is none")
        words = [program]
        words += ["--context", self.context] if self.context else []
        return [*words, "--namespace", self.namespace] if self.namespace else words


def _at(value: Json, *path: str) -> Json:
    """What lies at ``path``; None where nothing does."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _local_port(process: "subprocess.Popen[bytes]", told: IO[bytes], said: IO[bytes]) -> int:
    """As kubectl tells it in ``told``. Raises ClusterError."""
    until, ended = time.monotonic() + PATIENCE, False
    while not ended and time.monotonic() < until:
        ended = process.poll() is not None  # before the look: what it said last is seen as well
        if forwarding := _FORWARDING.search(_written(told)):
            return int(forwarding[1])
        time.sleep(0 if ended else _LOOK)
    why = _printed(said) or f"expected a forwarded port within {PATIENCE:g} s, found none"
    raise ClusterError(f"kubectl port-forward: {why}")


def _printed(said: IO[bytes]) -> str:
    return _words(_written(said))


def _written(to: IO[bytes]) -> bytes:
    """At most 64 KiB from the start of what a child wrote to its copy of ``to``, which has one offset with ours: a seek
    here would have the child write over its own words."""
    return os.pread(to.fileno(), 65536, 0)


def _words(data: bytes) -> str:
    return " ".join(data.decode(errors="replace").split())[:500]


def in_cluster(name: str, namespace: str | None, context: str | None) -> ClusterModel | None:
    """The model in a cluster, where an option says that it is in one. Ends the command for names that Kubernetes has
    none of: a word that begins with a dash would be an option of kubectl's, and an empty one would mean what serves
    here."""
    if namespace is None and context is None:
        return None
    if not _NAME.fullmatch(name):
        fail(f"{name!r}: expected the name of a model, as in kubectl get gmodel -A (a receipt's with --against)")
    if namespace is not None and not _NAME.fullmatch(namespace):
        fail(f"--namespace {namespace!r}: expected the name of a namespace, as in kubectl get namespaces")
    if context is not None and not context:
        fail("--context '': expected the name of a context, as in kubectl config get-contexts")
    return ClusterModel(name, namespace, context)


def here(name: str, port: int, workdir: Path | None = None) -> str:
    """Address of a port of the model's run on this machine; of one with the ports as they are, where none runs."""
    from governed_operator.local.workdir import Workdir

    return Workdir.of(name, workdir).address(port)


def refuse_both(url: str | None) -> None:
    """Ends the command for an address beside a cluster: one of them would be left out without a word."""
    if url is not None:
        fail(f"--url {url}: expected it without --namespace and --context, which find the model in a cluster")


def models_in_cluster(namespace: str | None, context: str | None, everywhere: bool) -> list[dict[str, Json]]:
    """GovernedModels by namespace and name. Raises ClusterError; ends the command for names that Kubernetes has none
    of."""
    cluster = in_cluster("models", namespace, context) or ClusterModel("models")
    listed = cluster.kubectl_json("get", _MODELS, "-o", "json", *(["--all-namespaces"] if everywhere else [])) or {}
    return mappings(listed.get("items"))


def _log_line(text: str) -> tuple[str, str, str]:
    match = _PREFIX.fullmatch(text)
    return ("", f"{match[1]}/{match[2]}", match[3]) if match else ("", "kubectl", text)


@contextmanager
def reached(url: str | None, port: int, name: str, cluster: ClusterModel | None) -> Iterator[str]:
    """``url``, or where ``port`` of the model serves here, or where that of its pods in ``cluster`` is forwarded to;
    ends the command with what kubectl said."""
    if cluster is None:
        yield url or here(name, port)
        return
    refuse_both(url)
    try:
        with cluster.forwarded(cluster.pod(), port) as address:
            yield address
    except ClusterError as error:
        fail(str(error))


def kept(folder: Path, name: str, content: bytes) -> Path:
    """A file of ``folder`` that only the caller may read."""
    from governed_operator.local.volumes import write_private

    path = folder / name
    write_private(path, content)
    return path
