"""Another's engine in a cluster: alibi, in an image of its own that the manifest's `explainer.engine` chooses.

Its image takes minutes to fetch and build and no other test wants it: tests/run e2e -m opt_in
"""

from collections.abc import Iterator

import pytest
import yaml

from support.cluster_access import Cluster, KubectlError
from support.fixtures import dump_on_failure
from support.governed import SAMPLES, ask, await_condition, pods, row, start_client
from support.images import OPTIONAL, build_images
from support.kind_bed import KindBed
from support.progress import Say
from support.release import Release

pytestmark = pytest.mark.opt_in

(IMAGE,) = OPTIONAL
URL = "http://admissions:8080/v2/models/admissions"


@pytest.fixture(scope="module")
def cluster(kind_bed: KindBed, release: Release, tell: Say) -> Iterator[Cluster]:  # noqa: ARG001
    """A namespace with the sample, explained by alibi."""
    build_images([IMAGE.role], tell)
    kind_bed.load_images([IMAGE.name, IMAGE.alias], tell)
    here = kind_bed.cluster.within(kind_bed.cluster.create_namespace("alibi"))
    model = yaml.safe_load((SAMPLES / "admissions.yaml").read_text())
    model["spec"]["explainer"] = {"engine": "alibi", "acceptLicence": "BSL-1.1"}
    here.apply(model)
    start_client(here)
    await_condition(here, "admissions", within=600)
    yield here
    here.kubectl("delete", "namespace", here.namespace, "--wait=false")


def test_alibi_explains_through_the_service_in_our_form(cluster: Cluster, request: pytest.FixtureRequest) -> None:
    dump_on_failure(request, cluster)
    images = {
        container["name"]: container["image"]
        for pod in pods(cluster, "admissions")
        for container in pod["spec"]["containers"]
    }
    assert images["explainer"] == IMAGE.name
    body = row(department="A", sex="male")
    status, found = ask(cluster, f"{URL}/explain", {**body, "id": "reasoned"})
    assert status == 200, found
    (explanation,) = found["explanations"]
    assert (explanation["engine"]["name"], explanation["engine"]["alibi"]) == ("alibi", "0.9.6")
    shares = {one["feature"]: abs(one["attribution"]) for one in explanation["attributions"]}
    assert shares["department"] > shares["sex"], found
    assert abs(explanation["additivity_residual"]) < 1e-6
    assert ask(cluster, f"{URL}/explain", {**body, "id": "reasoned"})[1] == found, "the same id, the same answer"
    status, found = ask(cluster, f"{URL}/explain", {**body, "parameters": {"method": "anchors"}})
    assert status == 200, found
    (rule,) = found["explanations"]
    assert {one["player"] for one in rule["anchor"]} <= {"department", "sex"}
    assert rule["certified"] == (rule["precision"] >= rule["threshold"])


def test_an_api_server_refuses_it_without_its_licence(cluster: Cluster) -> None:
    unaccepted = '{"spec": {"explainer": {"acceptLicence": null}}}'
    with pytest.raises(KubectlError, match=r"engine alibi needs acceptLicence BSL-1\.1"):
        cluster.kubectl("patch", "gmodel", "admissions", "--type=merge", "--dry-run=server", "-p", unaccepted)
