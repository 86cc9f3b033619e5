"""The project's images: one command builds them all from their Dockerfiles, bounds their size and writes an SBOM beside
each."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from governed_api.version import __version__
from governed_release.roles import BASE, REVISION
from support.docker_client import build_image, image_size, run_docker
from support.node_image import debian_root
from support.places import ROOT, cache, locked
from support.progress import BedError, Say, say
from support.sbom import write_sbom

MB = 1_000_000
SBOM_FOLDER = ROOT / "dist" / "sbom"
_BASE_PACKAGES = "python3,python3-venv,ca-certificates"


@dataclass(frozen=True)
class ProjectImage:
    """One image: its Dockerfile and target, the lock it is made from, and the most it may weigh without its base."""

    role: str
    dockerfile: str
    lock: str
    bound: int | None  # bytes
    beside: str = ""
    """The lock of a second environment in the same image."""

    @property
    def locks(self) -> tuple[str, ...]:
        return (self.lock, self.beside) if self.beside else (self.lock,)

    @property
    def name(self) -> str:
        return f"governed-models/{self.role}:{__version__}"

    @property
    def alias(self) -> str:
        """The name that the operator's own defaults use."""
        return f"ghcr.io/{self.name}"


_SERVING = "serving_image/Dockerfile"
IMAGES = (
    ProjectImage("operator", "operator/Dockerfile", "operator/locks/operator.txt", 120 * MB),
    *(
        ProjectImage(role, _SERVING, "serving_image/locks/serving.txt", 385 * MB)
        for role in ("server", "explainer", "auditor", "archive")
    ),
    ProjectImage("trainer", _SERVING, "serving_image/locks/train-cpu.txt", None),
)
"""What every installation needs."""

OPTIONAL = (
    ProjectImage(
        "explainer-alibi",
        _SERVING,
        "serving_image/locks/serving.txt",
        1050 * MB,
        beside="serving_image/locks/alibi.txt",
    ),
    ProjectImage(
        "explainer-captum", _SERVING, "serving_image/locks/serving.txt", None, beside="serving_image/locks/captum.txt"
    ),
)
"""Built where they are named, or by the test that needs one: for models that name another's engine."""


@dataclass(frozen=True)
class Built:
    """What a build gave: size without base in bytes, layers for comparing two builds, where the SBOM lies."""

    image: ProjectImage
    size: int
    layers: tuple[str, ...]
    sbom: Path


def ensure_base(tell: Say = say) -> str:
    """BASE_IMAGE where set (a registry's python:3.12-slim, say), else a local Debian with Python made by mmdebstrap."""
    return os.environ.get("BASE_IMAGE") or debian_root("local/governed-python:bookworm", _BASE_PACKAGES, tell)


def build_images(roles: Iterable[str] = (), tell: Say = say, fresh: bool = False) -> list[Built]:
    """Build all images but the optional ones (or those of `roles`), print sizes, refuse one that is too heavy; `fresh`
    uses no build cache.

    A Docker daemon must answer (`docker_daemon.acquire`).
    """
    named = set(roles)
    chosen = [image for image in (*IMAGES, *OPTIONAL) if image.role in named] if named else list(IMAGES)
    started = time.monotonic()
    with locked("images"):
        base = ensure_base(tell)
        offline = _same_python(base)
        if offline:
            with ThreadPoolExecutor() as pool:
                list(
                    pool.map(
                        lambda lock: _wheelhouse(lock, tell), sorted({lock for image in chosen for lock in image.locks})
                    )
                )
        contexts = {locks: _context(locks, offline) for locks in sorted({image.locks for image in chosen})}
        built = [_build(image, base, contexts[image.locks], offline, fresh) for image in chosen]
    for one in built:
        bound = f"of at most {one.image.bound / MB:.0f} MB" if one.image.bound else "(no bound: torch)"
        tell(f"{one.image.name}: {one.size / MB:.0f} MB without base {bound}; SBOM {one.sbom.relative_to(ROOT)}")
    tell(f"{len(built)} images built in {time.monotonic() - started:.0f} s")
    heavy = [one for one in built if one.image.bound and one.size > one.image.bound]
    if heavy:
        raise BedError(
            f"too heavy: {', '.join(one.image.name for one in heavy)}; drop a dependency or raise the bound on purpose"
        )
    return built


def _build(image: ProjectImage, base: str, context: Path, offline: bool, fresh: bool) -> Built:
    arguments = {"BASE_IMAGE": base, "TORCH": "cpu"}
    # A wheelhouse holds all that is needed: without a network nothing else can slip in.
    network = ["--network=none" if offline else "--network=host", *(["--no-cache"] if fresh else [])]
    labels = [f"--label={key}={value}" for key, value in ((REVISION, revision()), (BASE, base))]
    target, file = image.role, context / image.dockerfile
    build_image(image.name, context, file=file, target=target, arguments=arguments, extra=[*network, *labels])
    run_docker("tag", image.name, image.alias)
    layers = tuple(json.loads(run_docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", image.name)))
    sbom = write_sbom(image.name, image.role, __version__, SBOM_FOLDER)
    return Built(image, image_size(image.name) - image_size(base), layers, sbom)


def revision(root: Path = ROOT) -> str:
    """The commit that images are built from, which a release asks them for; "-dirty" where the tree differs."""

    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else "unknown"

    return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=all") else "")


def _same_python(base: str) -> bool:
    """Whether this Python can fetch wheels for the base image's: same minor version and machine."""
    code = "import sys, platform; print(sys.version_info[:2], platform.machine(), sys.platform)"
    here = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return run_docker("run", "--rm", "--network=none", "--entrypoint=python3", base, "-c", code) == here


def _wheelhouse(lock: str, tell: Say) -> Path:
    """All wheels of a lock file, hashes checked, in the cache under the lock's digest."""
    text = (ROOT / lock).read_bytes()
    folder = cache("wheelhouse") / f"{Path(lock).stem}-{hashlib.sha256(text).hexdigest()[:12]}"
    if not folder.exists():
        tell(f"fetching the wheels of {lock}")
        scratch = folder.with_name(f".{folder.name}.{os.getpid()}")
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
        ]
        result = subprocess.run(
            [*command, "--dest", str(scratch), "-r", str(ROOT / lock)], capture_output=True, text=True, check=False
        )
        if result.returncode:
            shutil.rmtree(scratch, ignore_errors=True)
            hint = (
                "; torch's CPU wheel comes from PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL"
                if "torch" in result.stderr
                else ""
            )
            raise BedError(f"pip download of {lock} failed{hint}:\n{result.stderr[-2000:]}")
        scratch.rename(folder)
    return folder


def _context(locks: tuple[str, ...], offline: bool) -> Path:
    """A build context in the cache: the sources that the Dockerfile copies, and a wheelhouse for each lock. Docker
    20.10 knows one context."""
    folder = cache("contexts") / "+".join(Path(lock).stem for lock in locks)
    shutil.rmtree(folder, ignore_errors=True)
    skip = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info")
    for part in ("crds/governed_api", "operator/governed_operator", "operator/locks", "serving_image/governed_serving",
                 "serving_image/locks"):  # fmt: skip
        shutil.copytree(ROOT / part, folder / part, ignore=skip)
    for dockerfile in ("operator/Dockerfile", _SERVING):
        shutil.copy(ROOT / dockerfile, folder / dockerfile)
    houses = ["wheelhouse", *(f"wheelhouse-{Path(lock).stem}" for lock in locks[1:])]
    for house, lock in zip(houses, locks if offline else (), strict=False):
        (folder / house).mkdir()
        for wheel in _wheelhouse(lock, say).iterdir():
            os.link(wheel, folder / house / wheel.name)
    for path in folder.rglob("*"):
        if not set(houses) & set(path.parts):
            path.chmod(0o755 if path.is_dir() else 0o644)  # a contributor's umask is no part of the image
    return folder
