"""The API key, or an issuer's token, that commands show a model which asks who calls: of a file or the environment,
never of the command line, where ps and the shell's history show it."""

import os
from pathlib import Path
from typing import Annotated

import typer

from governed_api.callers import API_KEY_HEADER, split_api_key
from governed_api.regular_files import KEY_BYTES, read_regular
from governed_api.token_keys import TOKEN_FORM
from governed_operator.cli.fail import fail

__all__ = ["ApiKeyFile", "api_key_headers"]

VARIABLE = "GOVERNED_API_KEY"

ApiKeyFile = Annotated[
    Path | None,
    typer.Option(
        help=f"File with the API key or token, where the model asks who calls; or that itself in variable {VARIABLE}.",
        show_default=False,
    ),
]


def api_key_headers(file: Path | None) -> dict[str, str]:
    """What to send; empty where no key is given. Ends the command for what is neither key nor token, and never prints
    it."""
    where = str(file) if file is not None else VARIABLE
    try:
        text = read_regular(file, KEY_BYTES, follow=True).decode() if file is not None else os.environ.get(VARIABLE, "")
    except OSError as error:
        fail(f"{where}: {error.strerror or error}: expected a file with an API key")
    except UnicodeDecodeError:
        fail(f"{where}: expected an API key, found bytes that are no text")
    key = text.strip()
    if not key and file is None:
        return {}
    if TOKEN_FORM.fullmatch(key):
        return {"authorization": f"Bearer {key}"}
    if split_api_key(key) is None:
        found = f"{len(key)} characters that are none" if key else "nothing"
        form = "an API key (gmk_ID_SECRET, 64 characters; governed consumer create) or a token (JWT)"
        fail(f"{where}: expected {form}, found {found}")
    return {API_KEY_HEADER: key}
