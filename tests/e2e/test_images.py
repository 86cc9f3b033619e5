"""The project's images: they run as restricted pods, hold what they need and nothing else, and come out the same
twice."""

import json
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from governed_api.version import __version__
from governed_release.images import from_docker
from governed_release.roles import REVISION
from governed_release.sbom import document, inventory
from support import workloads
from support.cluster_access import Cluster
from support.docker_client import run_docker
from support.images import IMAGES, SBOM_FOLDER, build_images, revision
from support.waiting import eventually

ROLES = [image.role for image in IMAGES]
PACKAGE = {"operator": "governed_operator"}  # the others: governed_serving


def in_image(image: str, code: str) -> str:
    """Run Python code in an image, as restricted as a pod would be."""
    restrictions = ["--rm", "--read-only", "--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    return run_docker("run", *restrictions, "--entrypoint=python", image, "-c", code).strip()


@pytest.mark.parametrize("role", ROLES)
def test_image_runs_as_restricted_pod(role: str, project_images: dict[str, str], kind_namespace: Cluster) -> None:
    package = PACKAGE.get(role, "governed_serving")
    code = f"import {package}, os; print('runs', {package}.__name__, os.getuid())"
    main = workloads.container("", image=project_images[role], command=["python", "-c", code])
    spec = workloads.pod_spec(main, restartPolicy="Never")
    kind_namespace.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": role}, "spec": spec})
    eventually(
        lambda: kind_namespace.get("pod", role)["status"]["phase"] == "Succeeded", within=90, what=f"{role}'s end"
    )
    assert kind_namespace.kubectl("logs", role) == f"runs {package} 65532\n"


@pytest.mark.parametrize("role", ROLES)
def test_image_holds_no_compiler_no_pip_and_torch_only_in_the_trainer(
    role: str, project_images: dict[str, str]
) -> None:
    code = """
import importlib.util, json, os, pwd, shutil, sys
found = [name for name in ("cc", "gcc", "clang", "make", "pip", "pip3") if shutil.which(name)]
caches = [p for p in (pwd.getpwuid(0).pw_dir + "/.cache", "/home", "/tmp", "/wheelhouse") if os.path.isdir(p) and os.access(p, os.R_OK) and os.listdir(p)]
writable = [p for p in ("/opt/app", "/opt/governed", "/usr", "/etc") if os.access(p, os.W_OK)]
print(json.dumps({"tools": found, "caches": caches, "writable": writable, "user": os.getuid(),
                  "pip": bool(importlib.util.find_spec("pip")), "torch": bool(importlib.util.find_spec("torch"))}))
"""  # noqa: E501
    assert json.loads(in_image(project_images[role], code)) == {
        "tools": [],
        "caches": [],
        "writable": [],
        "user": 65532,
        "pip": False,
        "torch": role == "trainer",
    }


@pytest.mark.parametrize("role", ROLES)
def test_sbom_is_valid_and_names_what_is_installed(role: str, project_images: dict[str, str]) -> None:
    text = (SBOM_FOLDER / f"{role}.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    listed = {(c["name"], c["version"]) for c in json.loads(text)["components"]}
    code = "import importlib.metadata as m, json; print(json.dumps([[d.name, d.version] for d in m.distributions()]))"
    installed = {(name, version) for name, version in json.loads(in_image(project_images[role], code))}
    assert installed
    assert installed <= listed
    assert any(name == "libc6" for name, _ in listed), "the base's packages belong to it"


def test_a_release_reads_from_the_layers_what_the_running_image_says(
    project_images: dict[str, str], tmp_path: Path
) -> None:
    image = from_docker(project_images["operator"], tmp_path / "saved")
    read = document("operator", __version__, inventory(image, "operator"))
    assert read == json.loads((SBOM_FOLDER / "operator.cdx.json").read_text())
    assert image.labels[REVISION] == revision()


def test_second_build_from_nothing_gives_the_same_layers(project_images: dict[str, str]) -> None:
    cached, fresh = (build_images(["operator"], fresh=fresh)[0] for fresh in (False, True))
    assert cached.image.name == project_images["operator"]
    assert cached.layers == fresh.layers
