"""Others' engines in a cluster: alibi and captum, each in an image of its own that the manifest's `explainer.engine`
chooses, beside ours.

Their images take minutes to fetch and build and no other test wants them: tests/run e2e -m opt_in
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from support.cluster_access import Cluster, KubectlError
from support.fixtures import dump_on_failure
from support.governed import SAMPLES, ask, await_condition, pods, row, start_client
from support.images import OPTIONAL, build_images
from support.kind_bed import KindBed
from support.progress import Say
from support.release import Release
from support.waiting import eventually

pytestmark = pytest.mark.opt_in

IMAGE, CAPTUM = (next(image for image in OPTIONAL if image.role == f"explainer-{name}") for name in ("alibi", "captum"))
URL = "http://admissions:8080/v2/models/admissions"
ROW = {"department": "A", "sex": "male"}


@pytest.fixture(scope="module")
def cluster(kind_bed: KindBed, release: Release, tell: Say) -> Iterator[Cluster]:  # noqa: ARG001
    """A namespace with the sample, explained by alibi."""
    build_images([IMAGE.role], tell)
    kind_bed.load_images([IMAGE.name, IMAGE.alias], tell)
    here = kind_bed.cluster.within(kind_bed.cluster.create_namespace("alibi"))
    model = yaml.safe_load((SAMPLES / "admissions.yaml").read_text())
    model["spec"]["explainer"] = {"engine": "alibi", "acceptLicence": "BSL-1.1"}
    # In floating point, which captum needs as well: another engine is another revision of the same artefact.
    model["spec"]["lifecycle"].pop("compression"), model["spec"]["lifecycle"].pop("gates")
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
    body = row(**ROW)
    status, found = ask(cluster, f"{URL}/explain", {**body, "id": "reasoned"})
    assert status == 200, found
    (explanation,) = found["explanations"]
    assert (explanation["engine"]["name"], explanation["engine"]["alibi"]) == ("alibi", "0.9.6")
    shares = {one["feature"]: abs(one["attribution"]) for one in explanation["attributions"]}
    assert shares["department"] > shares["sex"], found
    assert abs(explanation["additivity_residual"]) < 1e-6
    again = ask(cluster, f"{URL}/explain", {**body, "parameters": {"seed": explanation["seed"]}})[1]
    assert again["explanations"] == found["explanations"], "the same row, parameters and seed, the same answer"
    status, found = ask(cluster, f"{URL}/explain", {**body, "parameters": {"method": "anchors"}})
    assert status == 200, found
    (rule,) = found["explanations"]
    assert {one["player"] for one in rule["anchor"]} <= {"department", "sex"}
    assert rule["certified"] == (rule["precision"] >= rule["threshold"])


def test_an_api_server_refuses_it_without_its_licence(cluster: Cluster) -> None:
    unaccepted = '{"spec": {"explainer": {"acceptLicence": null}}}'
    with pytest.raises(KubectlError, match=r"engine alibi needs acceptLicence BSL-1\.1"):
        cluster.kubectl("patch", "gmodel", "admissions", "--type=merge", "--dry-run=server", "-p", unaccepted)


def explained(cluster: Cluster, engine: str, method: str) -> dict[str, Any]:
    """By ``engine`` as soon as its pod answers: before, the one of the revision before does."""

    def look() -> dict[str, Any]:
        status, found = ask(cluster, f"{URL}/explain", {**row(**ROW), "parameters": {"method": method, "seed": 1}})
        assert status == 200, found
        (explanation,) = found["explanations"]
        assert explanation.get("engine", {"name": "ours"})["name"] == engine, explanation
        return dict(explanation)

    return eventually(look, within=300, every=2, what=f"{method} by {engine}")


def take(cluster: Cluster, **explainer: str | None) -> None:
    named = {"engine": None, "acceptLicence": None, "type": None, **explainer}
    cluster.kubectl("patch", "gmodel", "admissions", "--type=merge", "-p", json.dumps({"spec": {"explainer": named}}))


def attributed(explanation: dict[str, Any]) -> dict[str, float]:
    return {one["feature"]: one["attribution"] for one in explanation["attributions"]}


def line(engine: str, method: str, found: dict[str, Any]) -> str:
    """Of the table, as `tests/bench/explain engines` has it on a laptop."""
    if "attributions" in found:
        shares = " ".join(f"{name} {value:+.4f}" for name, value in attributed(found).items())
        told = f"{shares}  residual {found['additivity_residual']:.1e}"
    else:
        told = (
            f"{len(found['anchor'])} conditions  precision {found['precision']:.3f}  coverage {found['coverage']:.3f}"
        )
    return f"{engine:7} {method:20} {told}  evaluations {found['evaluations']}"


def test_alibi_beside_ours_on_the_same_row(cluster: Cluster, tell: Say, request: pytest.FixtureRequest) -> None:
    """KernelShap sees all coalitions of two features, so that it must give what enumeration gives."""
    dump_on_failure(request, cluster)
    asked = [("alibi", "shap"), ("alibi", "anchors")]
    found = {one: explained(cluster, *one) for one in asked}
    take(cluster)
    asked = [("ours", "exact"), ("ours", "sampled"), ("ours", "anchors")]
    found |= {one: explained(cluster, *one) for one in asked}
    for one, explanation in found.items():
        tell(line(*one, explanation))
    exact = found["ours", "exact"]
    assert exact["exact"]
    for one in (("ours", "sampled"), ("alibi", "shap")):
        assert attributed(found[one]) == pytest.approx(attributed(exact), abs=1e-5), one
        assert abs(found[one]["additivity_residual"]) < 1e-5
    for one in (("ours", "anchors"), ("alibi", "anchors")):
        assert found[one]["target"] == found["ours", "anchors"]["target"]
        assert found[one]["precision"] >= 0.95, one


def test_captum_beside_ours_on_the_same_row(
    cluster: Cluster, kind_bed: KindBed, tell: Say, request: pytest.FixtureRequest
) -> None:
    """Its integral runs along lines, another game: the sum is the same, and here so is the order."""
    dump_on_failure(request, cluster)
    build_images([CAPTUM.role], tell)
    kind_bed.load_images([CAPTUM.name, CAPTUM.alias], tell)
    take(cluster)
    exact = explained(cluster, "ours", "exact")
    take(cluster, engine="captum", type="integratedGradients")
    found = explained(cluster, "captum", "integratedGradients")
    for one in (("ours", "exact", exact), ("captum", "integratedGradients", found)):
        tell(line(*one))
    assert abs(found["additivity_residual"]) < 1e-3
    assert sum(attributed(found).values()) == pytest.approx(sum(attributed(exact).values()), abs=2e-3)
    size = {name: abs(value) for name, value in attributed(found).items()}
    assert size["department"] > size["sex"]
