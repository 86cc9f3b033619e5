"""The docker command: which client can ask for BuildKit here, and calls to it."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache as remembered
from pathlib import Path

from support.progress import BedError


def docker() -> str | None:
    """A client with buildx, or one before 23, which speaks to the daemon's own BuildKit without it; else whatever is
    there.

    Looked for at each call: a bed's set-up may have installed the one that can since the last.
    """
    candidates = [path for path in (shutil.which("docker"), "/usr/bin/docker", "/usr/local/bin/docker") if path]
    present = [path for path in dict.fromkeys(candidates) if os.access(path, os.X_OK)]
    return next((path for path in present if _can_buildkit(path)), present[0] if present else None)


@remembered
def _can_buildkit(client: str) -> bool:
    if subprocess.run([client, "buildx", "version"], capture_output=True, check=False).returncode == 0:
        return True
    version = subprocess.run([client, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"version (\d+)\.", version)
    return match is not None and int(match.group(1)) < 23


def run_docker(*args: str, stdin: str | None = None, timeout: float = 600, env: dict[str, str] | None = None) -> str:
    """Run docker and return its stdout; BedError with its stderr when it fails."""
    client = docker()
    if client is None:
        raise BedError("no `docker` on PATH: install docker.io (Debian) or Docker Engine")
    result = subprocess.run(
        [client, *args],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **(env or {})},
    )
    if result.returncode:
        raise BedError(f"docker {' '.join(args[:6])} failed: {(result.stderr or result.stdout).strip()[-3000:]}")
    return result.stdout


def docker_lines(*args: str) -> list[str]:
    """Lines of a docker query; none when there is no client or no daemon."""
    client = docker()
    if client is None:
        return []
    result = subprocess.run([client, *args], capture_output=True, text=True, timeout=60, check=False)
    return result.stdout.splitlines() if result.returncode == 0 else []


def daemon_answers() -> bool:
    return bool(docker_lines("info", "--format", "{{.ServerVersion}}"))


def image_exists(name: str) -> bool:
    return bool(docker_lines("image", "inspect", "--format", "{{.Id}}", name))


def image_size(name: str) -> int:
    """Bytes of an image, all layers."""
    return int(run_docker("image", "inspect", "--format", "{{.Size}}", name))


def build_image(
    tag: str, context: Path, *, file: Path | None = None, target: str = "", buildkit: bool = True,
    arguments: dict[str, str] | None = None, extra: Sequence[str] = (),
) -> None:  # fmt: skip
    """docker build, quiet; the log is part of the error."""
    options = [f"--build-arg={key}={value}" for key, value in (arguments or {}).items()]
    options += [f"--file={file}"] if file else []
    options += [f"--target={target}"] if target else []
    run_docker(
        "build", "--tag", tag, *options, *extra, str(context), timeout=1800, env={"DOCKER_BUILDKIT": str(int(buildkit))}
    )
