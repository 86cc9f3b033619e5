"""The ``governed`` command."""

import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from governed_api.version import __version__
from governed_operator.cli import (
    acknowledge,
    archive,
    console,
    consumer,
    contest,
    contests,
    crd,
    decide,
    detect,
    dossier,
    explain,
    infer,
    init,
    inspect,
    list_models,
    logs,
    mask,
    pin,
    render,
    report,
    run,
    status,
    subject,
    usage,
    validate,
    verify,
)
from governed_operator.cli.plugin import with_context

app = typer.Typer(
    name="governed",
    help="Accountable model services: validate, render and run GovernedModels; explain, verify, report.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for module in (
    validate,
    inspect,
    mask,
    pin,
    init,
    render,
    run,
    list_models,
    status,
    console,
    logs,
    crd,
    infer,
    explain,
    verify,
    detect,
    report,
    dossier,
    usage,
    acknowledge,
    contest,
    contests,
    decide,
):
    app.command(module.__name__.rsplit(".", 1)[1].removesuffix("_models"))(module.command)


def _version(asked: bool) -> None:
    if asked:
        print(f"governed {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.add_typer(archive.app, name="archive")
app.add_typer(consumer.app, name="consumer")
app.add_typer(subject.app, name="subject")


def main() -> None:
    """Entry point of the console script. A command that is told to end lets go of what it holds, as at Ctrl-C: a
    forwarded port, a file with a token."""
    _let_go()
    app()


def plugin() -> None:
    """Entry point of ``kubectl governed``."""
    _let_go()
    try:
        words = with_context(typer.main.get_group(app), sys.argv[1:])
    except typer.Exit as ended:
        sys.exit(ended.exit_code)
    app(words, prog_name="kubectl governed")


def _let_go() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup's stays
            signal.signal(number, _end)


def _end(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


__all__ = ["app", "main", "plugin"]
