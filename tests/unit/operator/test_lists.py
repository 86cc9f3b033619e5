"""Lists as API servers, and what stands before them, answer: an empty one, and one that is none, end no watch."""

from typing import Any

import pytest

from governed_operator.kube.cluster import ApiError, Cluster
from governed_operator.kube.kinds import MODEL

PARTIAL = b'{"kind":"PartialObjectMetadataList","metadata":{"resourceVersion":"7"},"items":%b}'
ITEM = b'[{"metadata":{"name":"m","namespace":"n","resourceVersion":"5"}}]'
NO_LISTS = {
    "a proxy's page": b"<html>back soon</html>",
    "no object": b'["x"]',
    "an item without a name": PARTIAL % b'[{"metadata":{}}]',
    "cut off": (PARTIAL % ITEM)[:-9],
    "nothing": b"",
}


class Answering(Cluster):
    """Answers everything alike."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    async def _exchanged(self, *_: Any) -> bytes:
        return self.answer


async def pages(cluster: Cluster) -> list[tuple[list[bytes], str]]:
    return [page async for page in cluster.pages(MODEL, "")]


@pytest.mark.parametrize("items", [b"null", b"[]"])
async def test_a_cluster_without_models_has_an_empty_list(items: bytes) -> None:
    """The list of metadata alone says null: liveness must not take the operator for dead in an empty cluster."""
    cluster = Answering(PARTIAL % items)
    assert await cluster.versions(MODEL) == {}
    assert await pages(cluster) == [([], "7")]


async def test_versions_are_read_by_name() -> None:
    assert await Answering(PARTIAL % ITEM).versions(MODEL) == {("n", "m"): 5}


@pytest.mark.parametrize("name", NO_LISTS)
async def test_what_is_no_list_is_an_error_that_a_watch_survives(name: str) -> None:
    with pytest.raises(ApiError, match="expected a list of governedmodels"):
        await Answering(NO_LISTS[name]).versions(MODEL)


@pytest.mark.parametrize("name", ["a proxy's page", "no object", "cut off", "nothing"])
async def test_what_is_no_page_is_an_error_that_a_watch_survives(name: str) -> None:
    with pytest.raises(ApiError, match="expected a list of governedmodels"):
        await pages(Answering(NO_LISTS[name]))
