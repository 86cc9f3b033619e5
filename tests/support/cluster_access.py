"""One cluster, seen through kubectl: commands, objects, namespaces, and what to print when a test failed."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from support.programs import program
from support.waiting import eventually

Object = dict[str, Any]


class KubectlError(RuntimeError):
    """kubectl said no; the message is its own."""


@dataclass(frozen=True)
class Cluster:
    """A cluster by its kubeconfig. Commands run in `namespace` unless they name one."""

    kubeconfig: Path
    namespace: str = "default"

    def within(self, namespace: str) -> "Cluster":
        return Cluster(self.kubeconfig, namespace)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}

    def command(self, *args: str) -> list[str]:
        """The argument vector of a kubectl call, for callers that keep the process (port-forward, logs -f)."""
        return [str(program("kubectl")), f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", *args]

    def kubectl(self, *args: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        """Run kubectl and return its stdout; raises KubectlError with its stderr."""
        try:
            result = subprocess.run(
                self.command(*args), input=stdin, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise KubectlError(f"kubectl {' '.join(args)} gave no answer within {timeout:.0f} s") from error
        if result.returncode:
            raise KubectlError(f"kubectl {' '.join(args)}: {result.stderr.strip() or result.stdout.strip()}")
        return result.stdout

    def get(self, kind: str, name: str) -> Object:
        got: Object = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return got

    def list(self, kind: str, *args: str) -> list[Object]:
        items: list[Object] = json.loads(self.kubectl("get", kind, "-o", "json", *args))["items"]
        return items

    def raw(self, path: str) -> str:
        """GET a path of the API server as it is."""
        return self.kubectl("get", "--raw", path)

    def apply(self, manifests: str | Mapping[str, Any] | Sequence[Mapping[str, Any]], *args: str) -> str:
        """kubectl apply -f - of YAML text, of one object or of several."""
        if not isinstance(manifests, str):
            objects = [manifests] if isinstance(manifests, Mapping) else manifests
            manifests = yaml.safe_dump_all([dict(o) for o in objects])
        return self.kubectl("apply", "-f", "-", *args, stdin=manifests)

    def execute(self, pod: str, *command: str, container: str | None = None, timeout: float = 60.0) -> str:
        """Run a command in a container of a pod (or `deployment/name`) and return its stdout."""
        chosen = ["-c", container] if container else []
        return self.kubectl("exec", pod, *chosen, "--", *command, timeout=timeout)

    def rollout(self, what: str, within: float = 120.0) -> None:
        self.kubectl("rollout", "status", what, f"--timeout={within:.0f}s", timeout=within + 10)

    def create_namespace(self, prefix: str = "test", restricted: bool = True) -> str:
        """A fresh namespace whose default service account exists; with Restricted Pod Security unless told
        otherwise."""
        name = f"{prefix[:40].rstrip('-')}-{uuid.uuid4().hex[:6]}"
        level = "restricted" if restricted else "privileged"
        labels = {"governed-models.io/test": "true", "pod-security.kubernetes.io/enforce": level}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        eventually(
            lambda: self.within(name).get("serviceaccount", "default"), within=90, what=f"{name}'s service account"
        )
        return name

    @contextmanager
    def port_forward(self, target: str, port: int) -> Iterator[int]:
        """kubectl port-forward to a pod or service; yields the loopback port."""
        command = self.command("port-forward", "--address=127.0.0.1", target, f":{port}")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("Forwarding from 127.0.0.1:"):
                raise KubectlError(f"port-forward to {target}: {line.strip()}")
            yield int(line.split(":")[1].split(" ")[0])
        finally:
            process.terminate()
            process.communicate(timeout=10)

    def dump(self, extra_namespaces: Sequence[str] = ()) -> str:
        """All that helps after a failure: pods described, every container's log, events; here and in
        `extra_namespaces`."""
        parts = []
        for namespace in (self.namespace, *extra_namespaces):
            here = self.within(namespace)
            parts += [
                here._try(
                    "get", "all,pvc,networkpolicy,governedmodels,governancereports", "-o", "wide", "--ignore-not-found"
                ),
                here._try("describe", "pods"),
                here._try("get", "events", "--sort-by=.lastTimestamp"),
                *here._logs(),
            ]
        return "\n".join(parts)

    def _logs(self) -> Iterator[str]:
        try:
            pods = self.list("pods")
        except KubectlError as error:
            yield str(error)
            return
        for pod in pods:
            name = pod["metadata"]["name"]
            statuses = pod.get("status", {}).get("containerStatuses", []) + pod.get("status", {}).get(
                "initContainerStatuses", []
            )
            for status in statuses:
                which = ["logs", name, "-c", status["name"], "--tail=200"]
                yield self._try(*which)
                if status.get("restartCount"):
                    yield self._try(*which, "--previous")

    def _try(self, *args: str) -> str:
        header = f"----- {self.namespace}: kubectl {' '.join(args)}"
        try:
            return f"{header}\n{self.kubectl(*args)}"
        except KubectlError as error:
            return f"{header}\n{error}"
