"""`governed console` as a person starts and ends it."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from governed_operator.cli import app
from governed_operator.cli.console_upstream import LocalUpstream, Recomputing
from governed_operator.local.errors import LocalError
from support.waiting import eventually

PROGRAM = [str(Path(sys.executable).with_name("governed")), "console", "--port", "0"]


def refused(*words: str) -> Result:
    result = CliRunner().invoke(app, ["console", *words])
    assert result.exit_code == 1
    return result


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "", "localhost.evil.example", "127.0.0.2"])
def test_an_address_that_others_reach_wants_a_word(host: str) -> None:
    assert "--expose-without-authentication" in refused("--host", host).stderr


def test_a_port_in_use_and_an_address_of_another_machine_are_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "choose another --port" in refused("--port", str(taken.getsockname()[1])).stderr
    elsewhere = refused("--host", "192.0.2.1", "--expose-without-authentication", "--port", "0").stderr
    assert "expected an address of this machine as --host" in elsewhere
    assert "--port (0" not in elsewhere


@contextmanager
def console(*words: str, environment: Mapping[str, str] | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and the address that it says."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*PROGRAM, *words], stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().split()[0]
        finally:
            process.kill()


def test_it_opens_the_browser_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    """Although the browser, one in a terminal, goes on."""
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f'#!/bin/sh\necho "$1 $$" > {seen}.new\nmv {seen}.new {seen}\nexec sleep 600 >&- 2>&-\n')
    browser.chmod(0o700)
    environment = os.environ | {"BROWSER": str(browser)}
    with console("--open", "--below", str(tmp_path / "none"), environment=environment) as (process, url):
        opened, pid = eventually(lambda: seen.read_text().split(), within=300, what="the browser")
        try:
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=300)
            assert (opened, process.returncode, said) == (url, 130, "")
        finally:
            os.kill(int(pid), signal.SIGKILL)


def test_a_recomputation_ends_with_the_console() -> None:
    recomputing, ended = Recomputing(), threading.Event()

    def run() -> None:
        with pytest.raises(LocalError, match="being stopped"):
            recomputing.run(["sleep", "600"], os.environ)
        ended.set()

    thread = threading.Thread(target=run)
    thread.start()
    eventually(lambda: recomputing._process is not None, what="the process")
    recomputing.stop()
    thread.join(300)
    assert ended.is_set()
    with pytest.raises(LocalError, match="being stopped"):
        recomputing.run(["true"], os.environ)


def test_a_work_directory_of_any_name_has_an_address(tmp_path: Path) -> None:
    """A link, and a name in another encoding; neither takes the page of the others with it."""
    runs = tmp_path / "runs"
    for name in ("plain", os.fsdecode(b"caf\xe9")):
        (runs / name).mkdir(parents=True)
        (runs / name / "model.json").write_bytes(b"\xff{")
    (runs / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "model.json").write_text("{}")
    upstream = LocalUpstream(runs)
    keys = [key for key, _ in upstream.models()]
    assert len(keys) == len({key.encode() for key in keys}) == 3
    for key in keys:
        assert (upstream._workdir(key).model_file).is_file()
