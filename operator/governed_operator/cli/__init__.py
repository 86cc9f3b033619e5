"""The ``governed`` command."""

from typing import Annotated

import typer

from governed_api.version import __version__
from governed_operator.cli import (
    acknowledge,
    archive,
    contest,
    contests,
    crd,
    decide,
    explain,
    infer,
    init,
    inspect,
    pin,
    render,
    report,
    run,
    subject,
    validate,
    verify,
)

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
    pin,
    init,
    render,
    run,
    crd,
    infer,
    explain,
    verify,
    report,
    acknowledge,
    contest,
    contests,
    decide,
):
    app.command(module.__name__.rsplit(".", 1)[1])(module.command)


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
app.add_typer(subject.app, name="subject")


def main() -> None:
    """Entry point of the console script."""
    app()


__all__ = ["app", "main"]
