"""Auditors tell each other their counts through the archive: what is new is read once, what is replaced is gone."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from governed_serving.archive.client import ArchiveClient
from governed_serving.auditor.service.replicas import OtherReplicas, Replicas, replica_of
from governed_serving.auditor.service.tally import SharedMonitoringState, Tally
from governed_serving.crypto import DirectoryStore, Kek, Keyring, Tampered
from governed_serving.fairness.monitoring.alarms import Alarm

from ..archive.test_app import Bed


def tally(rows: int) -> Tally:
    return Tally({}, rows, rows, 0, 0, [], Alarm("Alert", 1))


class Site:
    """Replicas of one model in an archive that answers by HTTP; ``now`` is their clock."""

    def __init__(self, root: Path) -> None:
        self.now, self.bed = 0.0, Bed(root / "archive")
        self.keyset = Keyring(Kek(bytes(32)), DirectoryStore(root / "keys")).keyset("journal")
        self.asked: list[int] = []
        self.client = self.bed.client()
        self.client._http.event_hooks = {"response": [lambda answer: self.asked.append(answer.status_code)]}

    def replica(self, name: str, group: str = "g", client: ArchiveClient | None = None) -> Replicas:
        return Replicas(client or self.bed.client(), self.keyset, group, name, lambda: self.now)

    def close(self) -> None:
        self.bed.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with closing(Site(tmp_path)) as made:
        yield made


def test_counts_are_heard_by_the_group_and_named_by_the_ledger(site: Site) -> None:
    a, b, c, other = site.replica("a"), site.replica("b"), site.replica("c"), site.replica("d", "h")
    for replica, rows in ((a, 1), (b, 2), (c, 3), (other, 4)):
        replica.publish(tally(rows), "r1", False)
    b.publish(tally(20), "r1", False)
    assert a.others is None
    a.refresh()
    assert a.others is not None
    assert a.tallies == [tally(20), tally(3)]
    noted = {
        name: [f.fields()["digest"] for f in site.client.find(type="state", id=f"counts.g.{name}")] for name in "bc"
    }
    assert (len(noted["b"]), len(noted["c"])) == (2, 1)
    assert a.others.sources == {name: digests[-1] for name, digests in noted.items()}


def test_only_what_changed_is_published_and_only_what_changed_is_fetched(site: Site) -> None:
    a, b = site.replica("a", client=site.client), site.replica("b")
    b.publish(tally(2), "r1", False)
    b.publish(tally(2), "r1", False)
    assert site.bed.archive.ledger.size == 1
    for _ in range(2):
        a.refresh()
    assert site.asked == [200, 200, 200, 304], "names and counts; then names, and nothing new"
    assert a.tallies == [tally(2)]
    b.publish(tally(3), "r1", False)
    a.refresh()
    assert a.tallies == [tally(3)]


def test_who_has_ended_is_seldom_asked_and_may_come_back(site: Site) -> None:
    a, b = site.replica("a", client=site.client), site.replica("b")
    b.publish(tally(2), "r1", True)
    a.refresh()
    b.publish(tally(3), "r1", False)
    a.refresh()
    assert (site.asked, a.tallies) == ([200, 200, 200], [tally(2)])
    site.now = 61.0
    a.refresh()
    assert a.tallies == [tally(3)]
    b.publish(tally(3), "r1", True)
    a.refresh()
    site.asked.clear()
    site.now = 122.0
    for _ in range(2):
        a.refresh()
    assert site.asked == [200, 304, 200], "unchanged after its rest, it rests again"


def test_who_has_ended_or_counts_nothing_any_more_is_not_running(site: Site) -> None:
    """Its counts stay in the verdict; its last window of drift says nothing of now."""
    a, b, c = site.replica("a"), site.replica("b"), site.replica("c")
    b.publish(tally(2), "r1", False)
    c.publish(tally(3), "r1", True)
    a.refresh()
    assert (a.running, a.tallies) == ([tally(2)], [tally(2), tally(3)])
    site.now = 601.0
    a.refresh()
    assert (a.running, len(a.tallies)) == ([], 2)
    b.publish(tally(4), "r1", False)
    a.refresh()
    assert a.running == [tally(4)]


def test_what_is_watched_beside_the_verdict_is_told_and_an_earlier_version_told_nothing(site: Site) -> None:
    a, b = site.replica("a"), site.replica("b")
    told = SharedMonitoringState({"x": [1, 2]}, [["g", "a", "x", 1.0, 0.5, 0.25]], {"flips/sex=f": [3, 1]})
    b.publish(msgspec.structs.replace(tally(2), beside=told), "r1", False)
    earlier = {"revision": "r1", "final": False, "tally": msgspec.to_builtins(tally(3))}
    del earlier["tally"]["beside"]
    sealed = site.keyset.seal(msgspec.msgpack.encode(earlier), b"auditor counts 2\0counts.g.c")
    site.client.put_state("counts.g.c", sealed)
    a.refresh()
    assert [found.beside for found in a.tallies] == [told, SharedMonitoringState()]


def test_counts_are_no_blobs_and_old_ones_do_not_stay(site: Site) -> None:
    a = site.replica("a")
    for rows in range(5):
        a.publish(tally(rows), "r1", False)
    files = [p for name in ("states", "blobs") for p in (site.bed.root / name).rglob("*") if p.is_file()]
    assert [p.name for p in files] == ["counts.g.a"]


def test_references_of_an_earlier_version_are_passed_over(site: Site) -> None:
    blob = site.client.put_blob(site.keyset.seal(b"counts", b"auditor counts 1\0counts.g.b"))
    site.client.put_ref("counts.g.b", {"blob": blob, "revision": "r1", "rows": 3, "final": False})
    a = site.replica("a")
    a.refresh()
    assert a.others == OtherReplicas([], [], {})


def test_counts_under_another_replicas_name_are_refused_and_what_was_read_before_counts(site: Site) -> None:
    a, b, c = site.replica("a"), site.replica("b"), site.replica("c")
    b.publish(tally(2), "r1", False)
    c.publish(tally(3), "r1", False)
    found = site.client.state("counts.g.b")
    assert found is not None
    site.client.put_state("counts.g.c", found[0])
    with pytest.raises(Tampered):
        a.refresh()
    assert a.others is None
    c.publish(tally(4), "r1", False)
    a.refresh()
    assert a.tallies == [tally(2), tally(4)]


def test_a_lost_spool_begins_another_replica(tmp_path: Path) -> None:
    first = replica_of(tmp_path / "a", "pod")
    assert replica_of(tmp_path / "a", "pod") == first
    assert replica_of(tmp_path / "b", "pod") != first
