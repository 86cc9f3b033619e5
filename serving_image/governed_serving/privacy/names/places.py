"""Tags as finds: several places behind each other, or one with a street's, house's or flat's number, are an ADDRESS;
any other is a PLACE."""

import re
from collections.abc import Iterator, Sequence

from governed_serving.privacy.names.pieces import HAN
from governed_serving.privacy.names.tagged import Tag

__all__ = ["finds"]

_NUMBER = "[0-9A-Za-z一二三四五六七八九十百零〇-]"
_UNIT = "(?:号楼|号院|号|號|弄|巷|栋|棟|幢|座|单元|單元|室|楼|樓|层|層|段|组|村|队|户|门|房|#)"
_DETAIL = re.compile(rf"(?:[ ]?{_NUMBER}{{1,8}}{_UNIT})*(?:{_NUMBER}{{1,8}}(?![0-9A-Za-z{HAN}]))?")
"""What goes on an address: 3单元502室, 12栋2单元301."""
_DETAILED = re.compile(rf"{_NUMBER}{_UNIT}|[0-9]")
_GAP = re.compile(r"[ ,，]?\Z")
_EDGE = re.compile(rf"^[^0-9A-Za-z{HAN}]+|[^0-9A-Za-z{HAN}]+$")


def finds(text: str, tags: Sequence[Tag]) -> Iterator[Tag]:
    """``tags`` of ``text`` in order: trimmed, overlapping ones (of parts that overlap) and an address's joined."""
    for tag in _addresses(text, _joined(text, tags)):
        if any(map(str.isalpha, text[tag.start : tag.end])):
            yield tag


def _joined(text: str, tags: Sequence[Tag]) -> Iterator[Tag]:
    last: Tag | None = None
    for tag in tags:
        start, end = tag.start, tag.end
        while start < end and _EDGE.match(text[start]):
            start += 1
        while start < end and _EDGE.match(text[end - 1]):
            end -= 1
        if start == end:
            continue
        if last is not None and start < last.end:
            last = last._replace(end=max(end, last.end), score=max(tag.score, last.score))
            continue
        if last is not None:
            yield last
        last = tag._replace(start=start, end=end)
    if last is not None:
        yield last


def _addresses(text: str, tags: Iterator[Tag]) -> Iterator[Tag]:
    run: list[Tag] = []
    for tag in tags:
        if run and (tag.entity != "PLACE" or tag.start < run[-1].end or not _GAP.match(text[run[-1].end : tag.start])):
            yield _address(text, run)
            run = []
        if tag.entity == "PLACE":
            end = _detail(text, tag.end)
            run.append(tag._replace(end=end))
        elif not (run and tag.start < run[-1].end):
            yield tag
    if run:
        yield _address(text, run)


def _detail(text: str, place: int) -> int:
    match = _DETAIL.match(text, place)
    return match.end() if match else place


def _address(text: str, run: Sequence[Tag]) -> Tag:
    start, end = run[0].start, run[-1].end
    detailed = len(run) > 1 or _DETAILED.search(text, start, end) is not None
    return Tag("ADDRESS" if detailed else "PLACE", start, end, min(tag.score for tag in run))
