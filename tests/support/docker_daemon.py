"""A Docker daemon for the beds: the running one, or one started here and taken away again, with every rule it made."""

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from support.docker_client import daemon_answers, docker_lines, run_docker
from support.host import has_capability, is_root, require_packages
from support.places import SUPPORT, cache, locked
from support.processes import Process
from support.progress import BedError, Say, say

CAP_SYS_RESOURCE = 24
NOCAP = SUPPORT / "node" / "nocap-runc"
# What dockerd writes to, so what is put back as it was once our dockerd has gone.
_TABLES = (
    "ip filter",
    "ip nat",
    "ip raw",
    "ip6 filter",
    "ip6 nat",
    "ip6 raw",
    "ip docker-bridges",
    "ip6 docker-bridges",
)
_SYSCTLS = ("net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding", "net/ipv6/conf/all/forwarding",
            "net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables")  # fmt: skip


@dataclass(frozen=True)
class _State:
    """Our dockerd and what the machine looked like before it; `users` are the beds that lean on it."""

    process: Process
    users: list[str]
    tables: dict[str, str]
    interfaces: list[str]
    sysctls: dict[str, str]


def acquire(user: str, tell: Say = say) -> None:
    """Have a daemon whose containers may be privileged on this host; starts one where none answers. Pair with
    `release`."""
    with locked("dockerd"):
        state = _load()
        if state is not None and state.process.alive:
            _save(_State(state.process, sorted({*state.users, user}), state.tables, state.interfaces, state.sysctls))
            return
        if daemon_answers():
            _check_running_daemon()
            return
        _start(user, tell)


def release(user: str) -> None:
    """Say that `user` needs the daemon no more; the last user's going ends a daemon that was started here."""
    with locked("dockerd"):
        state = _load()
        if state is None:
            return
        users = [other for other in state.users if other != user]
        if users:
            _save(_State(state.process, users, state.tables, state.interfaces, state.sysctls))
        else:
            _stop(state)


def users() -> list[str]:
    state = _load()
    return state.users if state else []


def _check_running_daemon() -> None:
    runtime = docker_lines("info", "--format", "{{.DefaultRuntime}}")[0]
    if not has_capability(CAP_SYS_RESOURCE) and runtime != "nocap":
        raise BedError(
            f"this host lacks CAP_SYS_RESOURCE and the running dockerd's default runtime is {runtime}, so "
            "privileged containers, "
            f"and kind, would fail: stop that dockerd, or give it --add-runtime nocap={NOCAP} --default-runtime nocap"
        )


def _start(user: str, tell: Say) -> None:
    if not is_root():
        raise BedError("no Docker daemon answers, and starting one needs root: start dockerd, or run this as root")
    require_packages({"dockerd": "docker.io", "iptables": "iptables", "ip": "iproute2", "nft": "nftables"}, tell)
    snapshot = {name: text for name in _TABLES if (text := _table(name)) is not None}
    interfaces = sorted(os.listdir("/sys/class/net"))
    sysctls = {name: path.read_text() for name in _SYSCTLS if (path := Path("/proc/sys") / name).exists()}
    log = cache("beds") / "dockerd.log"
    log.unlink(missing_ok=True)
    runtime = [] if has_capability(CAP_SYS_RESOURCE) else [f"--add-runtime=nocap={NOCAP}", "--default-runtime=nocap"]
    process = Process("dockerd", [shutil.which("dockerd") or "/usr/sbin/dockerd", *runtime], str(log))
    process.start()
    _save(_State(process, [user], snapshot, interfaces, sysctls))
    deadline = time.monotonic() + 60
    while not daemon_answers():
        if not process.alive or time.monotonic() > deadline:
            tail = process.tail()
            _stop(_State(process, [], snapshot, interfaces, sysctls))
            raise BedError(f"dockerd did not come up; its log ends with:\n{tail}")
        time.sleep(0.2)
    tell(f"started dockerd (pid {process.pid}), because none answered; it goes when the last bed goes")


def _stop(state: _State) -> None:
    if state.process.alive:
        for network in docker_lines("network", "ls", "--filter=type=custom", "--format", "{{.Name}}"):
            if network == "kind" and not docker_lines("ps", "-aq", f"--filter=network={network}"):
                run_docker("network", "rm", network)
        state.process.stop(patience_s=30)
    for name in sorted(set(os.listdir("/sys/class/net")) - set(state.interfaces)):
        if name == "docker0" or name.startswith("br-"):
            subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)
    for name in _TABLES:
        now, before = _table(name), state.tables.get(name)
        if now != before:
            script = (f"delete table {name}\n" if now is not None else "") + (before or "")
            subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True, capture_output=True)
    for name, value in state.sysctls.items():
        (Path("/proc/sys") / name).write_text(value)
    _path().unlink(missing_ok=True)


def _table(name: str) -> str | None:
    """Text of an nf_tables table as nft can read it back, None when there is none."""
    result = subprocess.run(["nft", "list", "table", *name.split()], capture_output=True, text=True, check=False)
    return result.stdout if result.returncode == 0 else None


def _path() -> Path:
    return cache("beds") / "dockerd.json"


def _load() -> _State | None:
    if not _path().exists():
        return None
    saved = json.loads(_path().read_text())
    return _State(
        Process.from_state(saved["process"]), saved["users"], saved["tables"], saved["interfaces"], saved["sysctls"]
    )


def _save(state: _State) -> None:
    _path().write_text(json.dumps({**vars(state), "process": state.process.state()}))
