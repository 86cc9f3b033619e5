"""pytest fixtures over the beds: one control plane per session, one namespace per test, a dump when a test fails.

A conftest imports what its level needs; the hook `pytest_runtest_makereport` adds the dump to a failed test's report.
"""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.apiserver_bed import POD_CIDR, ApiServerBed
from support.audit_log import AuditLog
from support.cluster_access import Cluster
from support.faults import Faults
from support.images import IMAGES, build_images
from support.kind_bed import KindBed
from support.leftovers import Leftovers
from support.places import cache
from support.progress import Say
from support.release import NAMESPACE as OPERATOR_NAMESPACE
from support.release import Release


@pytest.fixture(scope="session")
def tell(request: pytest.FixtureRequest) -> Say:
    """Progress lines of long set-up that reach the terminal although pytest captures output."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    reporter = request.config.pluginmanager.getplugin("terminalreporter")

    def line(text: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.write_line(f"    {text}")

    return line


@pytest.fixture(scope="session")
def swept() -> None:
    """Beds of test runs that were killed are taken away first: their run is gone, their processes may not be."""
    for folder in cache("beds").glob("*-pytest-*"):
        kind, _, run = folder.name.partition("-")
        if not Path(f"/proc/{run.removeprefix('pytest-')}").exists():
            (KindBed(run) if kind == "kind" else ApiServerBed.named(run)).stop()
    for folder in cache("beds").glob("apiserver-*.*"):
        if not Path(f"/proc/{folder.suffix[1:]}").exists():
            ApiServerBed.named(folder.name.removeprefix("apiserver-")).stop()


@pytest.fixture(scope="session")
def api_bed(tell: Say, swept: None) -> Iterator[ApiServerBed]:  # noqa: ARG001
    """The session's API-server bed with three kwok nodes; after it, nothing of it may be left on this machine."""
    with started_bed(f"pytest-{os.getpid()}", tell) as bed:
        yield bed


@contextmanager
def started_bed(name: str, tell: Say, pod_cidr: str = POD_CIDR) -> Iterator[ApiServerBed]:
    """An API-server bed; one beside the session's, for tests that rule a whole cluster, is named `<what>.<process id>`."""
    bed = ApiServerBed.named(name)
    before = Leftovers.now(bed.folder)
    bed.start(nodes=3, tell=tell, pod_cidr=pod_cidr)
    try:
        yield bed
    finally:
        bed.stop()
    before.assert_same_now()


@pytest.fixture(scope="session")
def audit(api_bed: ApiServerBed) -> AuditLog:
    """The audit log of the API-server bed."""
    return api_bed.audit


@pytest.fixture(scope="session")
def kind_bed(tell: Say, swept: None) -> Iterator[KindBed]:  # noqa: ARG001
    """The kind cluster of the session: the one that `tests/cluster up` left running, else a fresh one that is taken away.

    KUBECONFIG is not looked at: tests break things, so they touch no cluster that these tools didn't make.
    """
    standing = KindBed("default")
    if standing.running:
        tell(f"using the kind bed that is up: {standing.kubeconfig}")
        yield standing
        return
    bed = KindBed(f"pytest-{os.getpid()}")
    before = Leftovers.now(bed.folder)
    bed.start(tell)
    try:
        yield bed
    finally:
        bed.stop()
    before.assert_same_now()


@pytest.fixture(scope="session")
def project_images(kind_bed: KindBed, tell: Say) -> dict[str, str]:
    """The project's images, built and on every node of the kind bed: role → name."""
    build_images(tell=tell)
    kind_bed.load_images([name for image in IMAGES for name in (image.name, image.alias)], tell)
    return {image.role: image.name for image in IMAGES}


@pytest.fixture(scope="session")
def release(kind_bed: KindBed, project_images: dict[str, str], tell: Say) -> Iterator[Release]:  # noqa: ARG001
    """The operator, installed by Helm from an earlier version of the chart, so that a test can upgrade it."""
    folder = kind_bed.folder / "helm"
    folder.mkdir(exist_ok=True)
    installed = Release(kind_bed.cluster, folder)
    tell("helm install of the operator")
    installed.upgrade(installed.previous_chart())
    yield installed
    if installed.installed:
        installed.uninstall()


@pytest.fixture
def kind_namespace(kind_bed: KindBed, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A fresh namespace on the kind bed, with Restricted Pod Security, as a `Cluster` whose commands run in it."""
    yield from in_fresh_namespace(kind_bed.cluster, request)


@pytest.fixture
def faults(kind_bed: KindBed, kind_namespace: Cluster) -> Faults:
    """Tools that break the kind bed, pods named within the test's namespace."""
    return Faults(kind_bed, kind_namespace)


@pytest.fixture
def namespace(api_bed: ApiServerBed, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A fresh namespace on the API-server bed, as a `Cluster` whose commands run in it."""
    yield from in_fresh_namespace(api_bed.cluster, request)


def in_fresh_namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A namespace named after the test; deleted afterwards without waiting for it."""
    prefix = request.node.originalname.removeprefix("test_").replace("_", "-").lower()
    fresh = cluster.within(cluster.create_namespace(prefix))
    dump_on_failure(request, fresh)
    yield fresh
    cluster.kubectl("delete", "namespace", fresh.namespace, "--wait=false")


def dump_on_failure(request: pytest.FixtureRequest, cluster: Cluster) -> None:
    """Have a failed test's report hold the state of this namespace and of the operator's."""
    request.node.stash[_DUMP] = lambda: cluster.dump([OPERATOR_NAMESPACE])


_DUMP = pytest.StashKey[Callable[[], str]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test's report holds the state of its namespace and of the operator's."""
    report = yield
    if report.when == "call" and report.failed and _DUMP in item.stash:
        report.sections.append(("state of the cluster", item.stash[_DUMP]()))
    return report
