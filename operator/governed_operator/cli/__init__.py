"""The ``governed`` command."""

import typer

from governed_operator.cli import (
    acknowledge,
    archive,
    contest,
    contests,
    crd,
    decide,
    explain,
    init,
    inspect,
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
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for module in (
    validate,
    inspect,
    init,
    render,
    run,
    crd,
    explain,
    verify,
    report,
    acknowledge,
    contest,
    contests,
    decide,
):
    app.command(module.__name__.rsplit(".", 1)[1])(module.command)
app.add_typer(archive.app, name="archive")
app.add_typer(subject.app, name="subject")


def main() -> None:
    """Entry point of the console script."""
    app()


__all__ = ["app", "main"]
