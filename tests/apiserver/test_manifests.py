"""The manifests for people without Helm."""

import yaml

from support.apiserver_bed import ApiServerBed
from support.cluster_access import Cluster
from support.gitops import authored, drift, kstatus
from support.places import ROOT
from support.release import NAMESPACE
from support.waiting import eventually

NAME = "governed-governed-models"


def test_manifests_apply_and_a_second_apply_changes_nothing(api_bed: ApiServerBed, defined: None) -> None:  # noqa: ARG001
    folder = str(ROOT / "charts" / "manifests")
    cluster = api_bed.cluster.within(NAMESPACE)
    try:
        cluster.kubectl("apply", "-k", folder)
        cluster.rollout(f"deployment/{NAME}")
        names = cluster.kubectl("apply", "-k", folder, "-o", "name").split()
        before = authored(cluster, *names)
        assert len(before) > 12
        said = cluster.kubectl("apply", "-k", folder).splitlines()
        assert authored(cluster, *names) == before
        # of a PodDisruptionBudget kubectl always sends the selector again: its patch strategy is to replace it
        changed = [line for line in said if not line.endswith(" unchanged")]
        assert changed == [f"poddisruptionbudget.policy/{NAME} configured"]
    finally:
        roles = [NAME, f"{NAME}-edit", f"{NAME}-view"]
        cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false", "--ignore-not-found")
        cluster.kubectl("delete", "clusterrole", *roles, "--ignore-not-found")
        cluster.kubectl("delete", "clusterrolebinding", NAME, "--ignore-not-found")


def test_the_manifests_agree_with_what_is_live(namespace: Cluster, defined: None) -> None:  # noqa: ARG001
    """Whatever the API server adds to the operator's own objects, Argo CD sees no drift in them."""
    text = (ROOT / "charts" / "manifests" / "install.yaml").read_text()
    objects = [d for d in yaml.safe_load_all(text) if d]
    for target in objects:
        if target["metadata"].get("namespace"):
            target["metadata"]["namespace"] = namespace.namespace
        if target["kind"] not in ("CustomResourceDefinition",) and "namespace" not in target["metadata"]:
            target["metadata"]["name"] = f"{target['metadata']['name']}-{namespace.namespace}"
    try:
        namespace.apply(objects)
        namespace.rollout("deployment/governed-governed-models")
        for target in objects:
            named = namespace.within(target["metadata"].get("namespace", "default"))
            live = named.get(target["kind"], target["metadata"]["name"])
            assert drift(target, live) == [], f"{target['kind']} {target['metadata']['name']}"
            read = lambda o=target, at=named: kstatus(at.get(o["kind"], o["metadata"]["name"]))[0]  # noqa: E731
            eventually(read, lambda status: status == "Current", within=90, what=f"{target['kind']} is Current")
        names = [f"{o['kind']}/{o['metadata']['name']}" for o in objects]
        before = authored(namespace, *names)
        namespace.apply(objects)  # says "configured" of a budget that it leaves as it is: its selector's patch strategy
        assert authored(namespace, *names) == before
    finally:
        for kind in ("ClusterRole", "ClusterRoleBinding"):
            names = [o["metadata"]["name"] for o in objects if o["kind"] == kind]
            namespace.kubectl("delete", kind, *names, "--ignore-not-found")
