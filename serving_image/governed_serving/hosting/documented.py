"""FastAPI applications whose ``/docs`` loads nothing from elsewhere."""

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from governed_api import routes
from governed_serving.hosting.door import exception_handlers

__all__ = ["documented"]


def documented(
    title: str, version: str, description: str = "", responses: dict[int | str, dict[str, object]] | None = None
) -> FastAPI:
    """An application with OpenAPI at ``/openapi.json`` and Swagger UI at ``/docs``, all of it from the image: it works
    without internet, and no reader's browser tells a third party. Errors have their common form; ``responses``: as
    OpenAPI documents them."""
    return FastAPIOffline(
        title=title,
        version=version,
        description=description,
        responses=responses,
        exception_handlers=exception_handlers(),
        redirect_slashes=False,
        redoc_url=None,
        static_url=routes.ASSETS,
    )
