"""Pages that people read, as both sides write them: escaped markup, building blocks, one style sheet."""

from importlib.resources import files

__all__ = ["style"]


def style() -> str:
    """The style sheet of the report's page, on which others build."""
    return files("governed_api.page").joinpath("style.css").read_text(encoding="utf-8")
