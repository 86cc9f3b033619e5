"""Names under a budget: what hangs, what is too much, what errs; closed unless the policy is Open."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from governed_api.governance import Masking
from governed_serving.privacy import Masker, MaskingError, masker
from governed_serving.privacy.errors import NamesFailed
from governed_serving.privacy.names import NameFinder
from governed_serving.privacy.names.lac import lac
from governed_serving.privacy.names.stage import MOST_WAITING, Stage
from governed_serving.privacy.names.tagged import Run, Tag


class Tagging:
    """Says that the first character is a person, after ``before``."""

    rule = "ner/test@0"

    def __init__(self, before: Callable[[Run], None]) -> None:
        self.before, self.asked = before, 0

    def reads(self, piece: str) -> bool:
        return bool(piece)

    def tag(self, pieces: Sequence[str], run: Run) -> list[list[Tag]]:
        self.asked += 1
        self.before(run)
        return [[Tag("PERSON", 0, 1, 1.0)] for _ in pieces]


def of(before: Callable[[Run], None], policy: str = "Closed", budget: float = 0.2) -> tuple[Masker, NameFinder]:
    names = NameFinder(Tagging(before), ["PERSON"], budget)
    rules = Masking.model_validate({"failurePolicy": policy})
    return masker(rules, names=names), names


@contextmanager
def hanging() -> Iterator[Callable[[Run], None]]:
    over = threading.Event()
    try:
        yield lambda _: over.wait(60) and None
    finally:
        over.set()


def out_of_memory(_: Run) -> None:
    raise MemoryError


def test_what_hangs_is_refused_when_its_budget_is_used_up_and_so_is_the_next() -> None:
    with hanging() as hang:
        act, names = of(hang)
        for _ in range(4):  # both threads hang, then texts wait
            began = time.monotonic()
            with pytest.raises(MaskingError, match=r"^names: expected them to be found within 0\.2 s .*retry later$"):
                act.mask("甲 secret")
            assert time.monotonic() - began < 30
        assert names.failures == {"budget": 4}
        assert act.failures == 4


def test_what_waits_is_bounded() -> None:
    with hanging() as hang:
        stage = Stage(Tagging(hang), 0.05)
        refused = []
        for _ in range(MOST_WAITING + 8):
            with pytest.raises(NamesFailed) as caught:
                stage.tags(["甲"])
            refused.append(caught.value.reason)
        assert refused[-1] == "queue"
        assert refused.index("queue") >= MOST_WAITING
        assert stage.waiting == MOST_WAITING


def test_threads_that_hung_go_on_with_what_is_asked_then() -> None:
    with hanging() as hang:
        tagger = Tagging(hang)
        stage = Stage(tagger, 0.1)
        for _ in range(6):
            with pytest.raises(NamesFailed):
                stage.tags(["甲"])
    tagger.before = lambda _: None
    stage.budget = 60
    assert stage.tags(["甲"]) == [[Tag("PERSON", 0, 1, 1.0)]]
    assert tagger.asked <= 3, "what nobody waits for any more is passed over"


def test_a_model_that_errs_refuses_and_quotes_nothing() -> None:
    act, names = of(out_of_memory, budget=60)
    with pytest.raises(MaskingError, match=r"^names: expected tags from the model ner/test@0, found MemoryError$"):
        act.mask("甲 secret")
    assert names.failures == {"model": 1}


def test_open_passes_names_alone_and_searches_them_again() -> None:
    act, names = of(out_of_memory, "Open", budget=60)
    assert act.mask("甲 13800138000") == "甲 <PHONE_NUMBER>"
    assert act.mask("甲") == act.mask("甲") == "甲"
    assert names.failures == {"model": 3}, "a text that could not be searched isn't remembered as clean"


def test_texts_of_a_request_share_its_budget() -> None:
    act, names = of(lambda _: time.sleep(0.15), budget=0.4)
    with act.request(), act.request(), pytest.raises(MaskingError):
        act.mask_many(["甲乙", "丙丁", "戊己", "庚辛"])
    assert names.failures == {"budget": 1}
    assert act.mask_many(["壬", "癸"]) == ["<PERSON>", "<PERSON>"], "each has its own outside"


def test_what_was_read_once_is_not_read_again() -> None:
    tagger = Tagging(lambda _: None)
    names = NameFinder(tagger, ["PERSON"], 60)
    for _ in range(3):
        assert names.find("甲乙。丙丁。甲乙。")
    assert tagger.asked == 1
    assert not any(isinstance(kept, str) for entry in names._known.items() for kept in entry)


def test_a_megabyte_is_refused_in_bounded_time() -> None:
    text = "".join(f"第{k}位客户张三住在北京市海淀区中关村大街{k}号，" for k in range(15_000))
    assert len(text.encode()) > 1_000_000
    names = NameFinder(lac(), ["PERSON"], 1.0)
    began = time.process_time()
    with pytest.raises(NamesFailed) as caught:
        names.find(text)
    assert caught.value.reason == "budget"
    assert time.process_time() - began < 12
    assert names.find("张三说")[0].entity == "PERSON" or names.failures["budget"] > 1


def test_many_threads_get_what_one_gets() -> None:
    names = NameFinder(lac(), ["PERSON"], 60.0)
    texts = [f"第{k}位客户张三说，李四在{k}楼。" for k in range(24)]
    alone = [NameFinder(lac(), ["PERSON"], 60.0).find(text) for text in texts]
    found: dict[int, object] = {}
    threads = [
        threading.Thread(target=lambda k=k, text=text: found.__setitem__(k, names.find(text)))
        for k, text in enumerate(texts)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[k] for k in range(len(texts))] == alone
