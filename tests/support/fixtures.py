"""pytest fixtures over the beds: one control plane per run, one namespace per test, a dump when a test fails.

A conftest imports what its level needs, hooks included: `pytest_runtest_makereport` adds the dump to a failed test's
report, `pytest_configure_node` and `pytest_sessionfinish` let the workers of a run share its beds (see `side_by_side`).
"""

import os
import sys
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
from support.places import cache, locked
from support.progress import Say, say
from support.release import NAMESPACE as OPERATOR_NAMESPACE
from support.release import Release
from support.side_by_side import among_workers, forget, is_worker, run_of, worker_number
from support.side_by_side import pytest_configure_node as pytest_configure_node


@pytest.fixture(scope="session")
def tell(request: pytest.FixtureRequest) -> Say:
    """Progress lines of long set-up that reach the terminal although pytest captures output; a worker's go to
    stderr."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    reporter = request.config.pluginmanager.getplugin("terminalreporter")

    def line(text: str) -> None:
        with capture.global_and_fixture_disabled():
            if reporter is None or is_worker(request.config):
                say(text)
            else:
                reporter.write_line(f"    {text}")

    return line


@pytest.fixture(scope="session")
def swept() -> None:
    """Beds of test runs that were killed are taken away first: their run is gone, their processes may not be."""
    with locked("sweep"):
        for folder in cache("beds").glob("*-pytest-*"):
            kind, _, run = folder.name.partition("-")
            if not Path(f"/proc/{run.removeprefix('pytest-')}").exists():
                (KindBed(run) if kind == "kind" else ApiServerBed.named(run)).stop()
        for folder in cache("beds").glob("apiserver-*.*"):
            if not Path(f"/proc/{folder.suffix[1:]}").exists():
                ApiServerBed.named(folder.name.removeprefix("apiserver-")).stop()


@pytest.fixture(scope="session")
def run(request: pytest.FixtureRequest) -> int:
    """What names that which the workers of this run share."""
    return run_of(request.config)


_BEFORE = pytest.StashKey[list[Leftovers]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remember what there was on this machine before the run's beds."""
    if not is_worker(session.config) and not session.config.option.collectonly:
        name = _bed_of(os.getpid())
        folders = (ApiServerBed.named(name).folder, KindBed(name).folder)
        session.stash[_BEFORE] = [Leftovers.now(folder) for folder in folders]


@pytest.hookimpl(trylast=True)  # after pytest-xdist has ended the workers
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Take away what the run's workers shared; nothing of its beds may be left on this machine."""
    before = session.stash.get(_BEFORE, [])
    session.stash[_BEFORE] = []  # several conftests may import this hook
    forget(os.getpid())
    name = _bed_of(os.getpid())
    _leave_standing_bed(os.getpid())
    started = [one for one in before if one.folder.exists()]
    for bed in (ApiServerBed.named(name), KindBed(name)):
        if any(one.folder == bed.folder for one in started):
            bed.stop()
    try:
        for one in started:
            one.assert_same_now()
    except AssertionError as error:
        print(f"\n{error}", file=sys.stderr)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _standing_bed() -> KindBed:
    """The one of `tests/cluster up`; GOVERNED_KIND_BED names another."""
    return KindBed(os.environ.get("GOVERNED_KIND_BED", "default"))


def _leave_standing_bed(run: int) -> None:
    """What this run put on the cluster that `tests/cluster up` keeps."""
    bed = _standing_bed()
    (bed.folder / f"images-of-{run}").unlink(missing_ok=True)
    released = bed.folder / f"release-of-{run}"
    if released.exists():
        installed = Release(bed.cluster, bed.folder / "helm-0")
        if installed.installed:
            installed.uninstall()
        released.unlink()


def _bed_of(run: int) -> str:
    return f"pytest-{run}"


@pytest.fixture(scope="session")
def api_bed(tell: Say, swept: None, run: int) -> ApiServerBed:  # noqa: ARG001
    """The run's API-server bed with three kwok nodes; the worker that comes first starts it."""
    with among_workers(run, "api-bed"):
        bed = ApiServerBed.named(_bed_of(run))
        if not bed.running:
            bed.start(nodes=3, tell=tell)
    return bed


@contextmanager
def started_bed(name: str, tell: Say, pod_cidr: str = POD_CIDR) -> Iterator[ApiServerBed]:
    """An API-server bed; one beside the session's, for tests that rule a whole cluster, is named `<what>.<process
    id>`."""
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
def kind_bed(tell: Say, swept: None, run: int) -> KindBed:  # noqa: ARG001
    """The kind cluster of the run: the one that `tests/cluster up` left running, else a fresh one that is taken away.

    KUBECONFIG is not looked at: tests break things, so they touch no cluster that these tools didn't make.
    """
    standing = _standing_bed()
    if standing.running:
        tell(f"using the kind bed that is up: {standing.kubeconfig}")
        return standing
    with among_workers(run, "kind-bed"):
        bed = KindBed(_bed_of(run))
        if not bed.running:
            bed.start(tell)
    return bed


@pytest.fixture(scope="session")
def project_images(kind_bed: KindBed, tell: Say, run: int) -> dict[str, str]:
    """The project's images, built and on every node of the kind bed: role → name."""
    with among_workers(run, "images"):
        built = kind_bed.folder / f"images-of-{run}"
        if not built.exists():
            build_images(tell=tell)
            kind_bed.load_images([name for image in IMAGES for name in (image.name, image.alias)], tell)
            built.touch()
    return {image.role: image.name for image in IMAGES}


@pytest.fixture(scope="session")
def release(kind_bed: KindBed, project_images: dict[str, str], tell: Say, run: int) -> Release:  # noqa: ARG001
    """The operator, installed by Helm from an earlier version of the chart, so that a test can upgrade it."""
    folder = kind_bed.folder / f"helm-{worker_number()}"
    folder.mkdir(exist_ok=True)
    installed = Release(kind_bed.cluster, folder)
    with among_workers(run, "release"):
        done = kind_bed.folder / f"release-of-{run}"
        if not done.exists():
            tell("helm install of the operator")
            installed.upgrade(installed.previous_chart())
            done.touch()
    return installed


CLUSTER = "cluster"
"""What tests on the kind bed hold together while they look at it, and one that breaks it for everybody holds alone."""


@pytest.fixture(autouse=True)
def undisturbed(request: pytest.FixtureRequest, run: int) -> Iterator[None]:
    """No test runs beside one that is marked `disturbs` (control plane, nodes, the operator's release)."""
    with among_workers(run, CLUSTER, alone=request.node.get_closest_marker("disturbs") is not None):
        yield


@pytest.fixture
def kind_namespace(kind_bed: KindBed, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A fresh namespace on the kind bed, with Restricted Pod Security, as a `Cluster` whose commands run in it."""
    yield from in_fresh_namespace(kind_bed.cluster, request)


@pytest.fixture
def faults(kind_bed: KindBed, kind_namespace: Cluster) -> Iterator[Faults]:
    """Tools that break the kind bed, pods named within the test's namespace; the next test finds every node fit."""
    made = Faults(kind_bed, kind_namespace)
    yield made
    made.await_nodes()


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


_STATE = "state of the cluster"
_DUMP = pytest.StashKey[Callable[[], str]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test's report holds the state of its namespace and of the operator's."""
    report = yield
    if report.when == "call" and report.failed and _DUMP in item.stash and not dict(report.sections).get(_STATE):
        report.sections.append((_STATE, item.stash[_DUMP]()))
    return report
