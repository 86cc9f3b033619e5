"""SLSA v1 provenance of an image (slsa.dev/spec/v1.0/provenance): only what this command knows or has checked."""

import os
from collections.abc import Mapping
from typing import Any

from governed_release.images import Image
from governed_release.registry import sha256
from governed_release.roles import BASE, Role
from governed_release.source_tree import SourceTree

TYPE = "https://slsa.dev/provenance/v1"
BUILD = "https://governedmodels.io/builds/dockerfile@v1"
"""The Dockerfile's target of the role's name, from the repository's root; parameters as given below."""
SOMEBODY = "https://governedmodels.io/builders/charts-release@v1"
"""Whoever held the key ran the command: no service vouches for where the image was built."""


def builder(environment: Mapping[str, str] = os.environ) -> str:
    """The workflow that runs the command on GitHub, else nobody in particular."""
    workflow = environment.get("GITHUB_WORKFLOW_REF")
    server = environment.get("GITHUB_SERVER_URL", "https://github.com")
    return f"{server}/{workflow}" if environment.get("GITHUB_ACTIONS") == "true" and workflow else SOMEBODY


def provenance(role: Role, version: str, image: Image, tree: SourceTree, built_by: str) -> dict[str, Any]:
    """`resolvedDependencies`: the commit, the Dockerfile and the locks by digest, and the base by name where the image
    says it."""
    files = [
        {"name": path, "digest": {"sha256": sha256(tree.read(path)).removeprefix("sha256:")}}
        for path in (role.dockerfile, *role.locks)
    ]
    commit: dict[str, Any] = {"name": "source", "digest": {"gitCommit": tree.commit}}
    if tree.source:
        commit["uri"] = tree.source
    base = image.labels.get(BASE)
    bases = [{"name": "base", "uri": f"docker:{base}"}] if base else []
    return {
        "buildDefinition": {
            "buildType": BUILD,
            "externalParameters": {
                "dockerfile": role.dockerfile,
                "target": role.name,
                "version": version,
                "platform": image.platform,
            },
            "internalParameters": {},
            "resolvedDependencies": [commit, *files, *bases],
        },
        "runDetails": {"builder": {"id": built_by}},
    }


def commit_of(predicate: dict[str, Any]) -> str | None:
    """The commit that a provenance names."""
    for one in predicate["buildDefinition"]["resolvedDependencies"]:
        if one.get("name") == "source":
            commit = one["digest"].get("gitCommit")
            return commit if isinstance(commit, str) else None
    return None
