"""``python -m governed_serving.archive``: what each verb takes, what it assumes where nothing is said, and how it
ends."""

from pathlib import Path
from typing import Any

import pytest

from governed_serving.archive import __main__ as command

P = Path
SOURCE: dict[str, Any] = {"key_file": [], "token_file": None, "model": ""}
WITNESSES: dict[str, Any] = {"witness_key": [], "quorum": 0}
VERIFY = {
    **SOURCE, **WITNESSES, "source": "archive", "id": "", "model_key": None, "checkpoint": [], "workdir": None,
    "no_blobs": False, "against": "", "json": False,
}  # fmt: skip
EXPORT = {
    **SOURCE, "source": "archive", "output": P("b.tar"), "of": "", "id": "", "blobs": False, "checkpoint": [],
}  # fmt: skip
BACKUP = {"source": "archive", "output": "-", "url": "", "key_file": None, "token_file": None, "namespace": ""}
RESTORE = {
    **WITNESSES, "input": "-", "folder": P("archive"), "key_file": [], "checkpoint": [], "accept_loss": False,
    "after": [], "erased": None, "accept_return": False,
}  # fmt: skip
SUBJECT = {
    "url": "http://a", "model": "credit", "who": "me", "by": "", "reason": "", "token_file": None, "key_file": None,
}  # fmt: skip
REWRAP = {"url": "http://a", "model": "credit", "token_file": None, "key_file": None, "new_key_file": P("new")}
PERSON = ["http://a", "--model", "credit", "--who", "me"]

TAKEN: list[tuple[list[str], dict[str, Any]]] = [
    (["serve"], {"host": None, "accept_loss": False}),
    (["serve", "--host", "::1", "--accept-loss"], {"host": "::1", "accept_loss": True}),
    (["fetch"], {}),
    (["verify", "archive"], VERIFY),
    (["verify", "archive", "--key-file", "a", "--key-file", "b"], {**VERIFY, "key_file": [P("a"), P("b")]}),
    (["verify", "archive", "--token-file", "t", "--model", "m"], {**VERIFY, "token_file": P("t"), "model": "m"}),
    (["verify", "archive", "--id", "7", "--model-key", "k"], {**VERIFY, "id": "7", "model_key": P("k")}),
    (["verify", "archive", "--checkpoint", "a", "--checkpoint", "b"], {**VERIFY, "checkpoint": [P("a"), P("b")]}),
    (["verify", "archive", "--workdir", "w", "--no-blobs"], {**VERIFY, "workdir": P("w"), "no_blobs": True}),
    (["verify", "archive", "--against", "x", "--json"], {**VERIFY, "against": "x", "json": True}),
    (
        ["verify", "archive", "--witness-key", "a", "--witness-key", "b", "--quorum", "1"],
        {**VERIFY, "witness_key": [P("a"), P("b")], "quorum": 1},
    ),
    (["export", "archive", "b.tar"], EXPORT),
    (["export", "archive", "b.tar", "--of", "m", "--id", "7"], {**EXPORT, "of": "m", "id": "7"}),
    (["export", "archive", "b.tar", "--blobs", "--checkpoint", "c"], {**EXPORT, "blobs": True, "checkpoint": [P("c")]}),
    (["backup", "archive", "-"], BACKUP),
    (["backup", "archive", "-", "--url", "u", "--namespace", "n"], {**BACKUP, "url": "u", "namespace": "n"}),
    (
        ["backup", "archive", "-", "--key-file", "k", "--token-file", "t"],
        {**BACKUP, "key_file": P("k"), "token_file": P("t")},
    ),
    (["restore", "-", "archive"], RESTORE),
    (["restore", "-", "archive", "--key-file", "a", "--key-file", "b"], {**RESTORE, "key_file": [P("a"), P("b")]}),
    (["restore", "-", "archive", "--accept-loss", "--accept-return"], {**RESTORE, "accept_loss": True, "accept_return": True}),  # noqa: E501
    (["restore", "-", "archive", "--after", "a", "--after", "b", "--erased", "e"], {**RESTORE, "after": ["a", "b"], "erased": P("e")}),  # noqa: E501
    (
        ["restore", "-", "archive", "--checkpoint", "c", "--witness-key", "w", "--quorum", "2"],
        {**RESTORE, "checkpoint": [P("c")], "witness_key": [P("w")], "quorum": 2},
    ),
    *((["subject", act, *PERSON], {**SUBJECT, "act": act}) for act in ("find", "export", "erase")),
    (
        ["subject", "erase", *PERSON, "--by", "b", "--reason", "r", "--token-file", "t", "--key-file", "k"],
        {**SUBJECT, "act": "erase", "by": "b", "reason": "r", "token_file": P("t"), "key_file": P("k")},
    ),
    (["rewrap", "http://a", "--model", "credit", "--new-key-file", "new"], REWRAP),
    (
        ["rewrap", "http://a", "--model", "credit", "--new-key-file", "new", "--token-file", "t", "--key-file", "k"],
        {**REWRAP, "token_file": P("t"), "key_file": P("k")},
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "taken"), TAKEN, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_verb_takes_its_options(words: list[str], taken: dict[str, Any]) -> None:
    options = vars(command._parser().parse_args(words))
    run = options.pop("run")
    assert run is getattr(command, f"_{words[0]}")
    assert options == {"verb": words[0], **taken}


WRONG = [
    [],
    ["look"],
    ["verify"],
    ["export", "archive"],
    ["backup", "archive"],
    ["restore", "-"],
    ["subject", "look", *PERSON],
    ["subject", "find", "http://a", "--model", "credit"],
    ["subject", "find", "http://a", "--who", "me"],
    ["subject", "find", "--model", "credit", "--who", "me"],
    ["rewrap", "http://a", "--model", "credit"],
    ["rewrap", "http://a", "--new-key-file", "new"],
    ["rewrap", "--model", "credit", "--new-key-file", "new"],
    ["verify", "archive", "--quorum", "many"],
]


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_wrong_usage_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    assert ended.value.code == 2
    assert "usage: python -m governed_serving.archive" in capsys.readouterr().err


def test_a_person_who_interrupts_gets_the_shells_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_fetch", interrupted)
    assert command.main(["fetch"]) == 130
