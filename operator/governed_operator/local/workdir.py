"""The work directory of a local run: what stays on disk (ciphertext, keys 0600) and what stays in memory
(plaintext)."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.roles import Role, token_key
from governed_operator.local.caretaker import POLL, RUN, Caretaker, at_work, note_of
from governed_operator.local.errors import LocalError, StaleRun
from governed_operator.local.process_table import Known, alive, is_known, known

RUNS = Path(".governed")
"""Where runs have their work directories unless --workdir says otherwise."""
SHM = Path("/dev/shm")
PATIENCE = 90.0
"""Seconds that a start waits for the caretaker of a run that died; what is left then is named."""


def pod_token_headers(path: Path) -> dict[str, str]:
    """What a port that asks for the pod's token in a file is sent. Raises OSError, UnicodeDecodeError."""
    return {rt.POD_TOKEN_HEADER: path.read_text("ascii").strip()}


def replace_content(path: Path, content: bytes) -> None:
    """Whoever reads meanwhile sees the old content or the new one, whole."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


class Workdir:
    """WORKDIR/{volumes,secrets,reports,logs,run.json,model.json …}; plaintext under ``memory``, gone with the run."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.volumes = self.root / "volumes"
        self.secrets = self.root / "secrets"
        self.reports = self.root / "reports"
        self.consumers = self.root / "consumers"
        """ModelConsumers, a file each."""
        self.logs = self.root / "logs"
        """What the containers of this run and of earlier ones wrote."""
        self.run_file = self.root / "run.json"
        self.model_file = self.root / "model.json"
        """The rules that the model was last run under, for its report."""
        base = SHM if SHM.is_dir() and os.access(SHM, os.W_OK) else Path(tempfile.gettempdir())
        tag = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        self.memory = base / f"governed-{os.getuid()}-{tag}"
        self._known: dict[str, Known] = {}
        self._caretaker: Caretaker | None = None

    @classmethod
    def of(cls, model: str, given: Path | None = None) -> "Workdir":
        """Of the run of ``model``: ``given``, else where runs are."""
        return cls(given or RUNS / model)

    @property
    def archive_folder(self) -> Path:
        """The archive's volume: ciphertext, ledger and blobs."""
        return self.volumes / object_names.ARCHIVE_CLAIM

    def operator_token(self, model: str) -> Path:
        """File of the token of whoever answers for ``model``."""
        return self.secrets / object_names.operator_token(model) / token_key(Role.OPERATOR)

    def pod_token(self, model: str) -> Path:
        """File of the token that the port of ``model``'s auditor asks for; there while it runs beside a foreign
        runtime."""
        return self.memory / object_names.local_pod(model) / object_names.POD_TOKENS / "auditor"

    def remember_model(self, document: bytes) -> None:
        """Keep the rules of this run."""
        replace_content(self.model_file, document)

    @property
    def lives(self) -> bool:
        """Whether a run holds this work directory."""
        entry = self._earlier().get(RUN)
        return entry is not None and alive(entry)

    @property
    def serving_port_offset(self) -> int | None:
        """What is added to every port of the model that serves from here; None while none does."""
        if not self.lives:
            return None  # a run that was killed leaves its note
        try:
            offset = json.loads(self._serving_file.read_bytes())["portOffset"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return offset if isinstance(offset, int) else None

    def address(self, port: int) -> str:
        """Of a port of the model on this machine; of one with the ports as they are, where none serves from here."""
        return rt.on_this_machine(port + (self.serving_port_offset or 0))

    def remember_serving(self, port_offset: int) -> None:
        """The model is ready: whoever asks for it by name finds its ports."""
        replace_content(self._serving_file, json.dumps({"portOffset": port_offset}).encode())

    @property
    def _serving_file(self) -> Path:
        return self.root / "serving.json"

    def archive_environment(self) -> dict[str, str]:
        """What a program needs to read that volume."""
        keys = self.secrets / object_names.ARCHIVE_KEYS
        return {rt.KEK_FILE: str(keys / rt.KEK_NAME), rt.ARCHIVE_ROOT_FILE: str(keys / rt.ROOT_NAME)}

    def open(self) -> None:
        """Make the folders and claim the work directory. Raises StaleRun, LocalError."""
        try:
            for folder in (self.root, self.volumes, self.secrets, self.reports, self.logs):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise LocalError(f"{self.root}: {error.strerror}: expected a folder that can be written") from error
        self._await_caretaker()
        self._refuse_stale()
        self._serving_file.unlink(missing_ok=True)
        if self.memory.exists():
            shutil.rmtree(self.memory)
        self.memory.mkdir(mode=0o700)
        self.remember(RUN, os.getpid())
        try:
            self._caretaker = Caretaker(self.run_file, self.memory)
        except OSError as error:
            raise LocalError(f"{self.root}: the run's caretaker can't be started: {error.strerror}") from error

    def close(self) -> None:
        """Forget plaintext and the claim."""
        self._serving_file.unlink(missing_ok=True)
        shutil.rmtree(self.memory, ignore_errors=True)
        self.run_file.unlink(missing_ok=True)
        if self._caretaker is not None:
            self._caretaker.dismiss()
            note_of(self.run_file).unlink(missing_ok=True)

    def _await_caretaker(self) -> None:
        """An earlier run that died is being cleaned up."""
        until = time.monotonic() + PATIENCE
        while at_work(self.run_file) and not self.lives and time.monotonic() < until:
            time.sleep(POLL)

    def _earlier(self) -> dict[str, Known]:
        try:
            noted = json.loads(self.run_file.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        entries = noted.items() if isinstance(noted, dict) else ()
        return {name: entry for name, entry in entries if is_known(entry)}

    def remember(self, name: str, pid: int, grace: float | None = None) -> None:
        """Note a process, so that a later run can tell whether it is still there, and the caretaker how long it may
        take to end."""
        self._known[name] = known(pid) if grace is None else {**known(pid), "grace": grace}
        self._save()

    def forget(self, name: str) -> None:
        if self._known.pop(name, None):
            self._save()

    def _save(self) -> None:
        replace_content(self.run_file, json.dumps(self._known).encode())

    def _refuse_stale(self) -> None:
        living = {name: entry for name, entry in self._earlier().items() if alive(entry)}
        if not living:
            return
        listed = ", ".join(f"{name} (pid {entry['pid']})" for name, entry in living.items())
        if RUN in living:
            raise StaleRun(f"{self.root} is in use by another run: {listed}; stop it, or choose another --workdir")
        pids = " ".join(str(entry["pid"]) for entry in living.values())
        raise StaleRun(f"an earlier run in {self.root} crashed and left {listed}; stop them first: kill {pids}")
