"""`governed pin URI`: the files behind a URI and the digest that pins them (a subprocess of the serving side)."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from governed_api.storage import scheme_of
from governed_operator.cli.fail import fail
from governed_operator.local.serving_side import module


def command(
    uri: Annotated[
        str,
        typer.Argument(
            help="file:PATH, https://, s3://, gs://, az://, hf://ORG/NAME@REVISION or oci://REGISTRY/REPOSITORY:TAG.",
            show_default=False,
        ),
    ],
    *,
    file: Annotated[
        list[str] | None, typer.Option("--file", help="Only these names or patterns, such as '*.json'.")
    ] = None,
    endpoint: Annotated[str, typer.Option(help="Address of your own object storage, hub or registry.")] = "",
    region: Annotated[str, typer.Option(help="Region of object storage.")] = "",
    keys: Annotated[Path | None, typer.Option(help="Folder with credentials, a file for each key of a Secret.")] = None,
    ca: Annotated[Path | None, typer.Option(help="Certificates to trust, PEM.")] = None,
    size: Annotated[str, typer.Option(help="Most bytes to fetch.")] = "16Gi",
    keep: Annotated[
        Path | None, typer.Option(help="Folder that keeps the files; an interrupted fetch goes on there.")
    ] = None,
) -> None:
    """Fetch what a URI names and print each file with its size and SHA-256, and the digest that pins them all."""
    try:
        scheme_of(uri)
    except ValueError as error:
        fail(str(error))
    program = module("governed_serving.sources", "pin", uri)
    if program is None:
        fail("the serving side isn't installed: pip install 'governed-models[serving,objects]'")
    given = {"--endpoint": endpoint, "--region": region, "--keys": keys, "--ca": ca, "--size": size, "--keep": keep}
    words = [str(word) for name, value in given.items() if value for word in (name, value)]
    words += [word for name in file or () for word in ("--file", name)]
    raise typer.Exit(subprocess.run([sys.executable, *program, *words], check=False).returncode)
