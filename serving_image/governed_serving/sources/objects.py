"""An object, or all below a prefix, of an object storage: ``s3://BUCKET/KEY``, ``gs://BUCKET/KEY``,
``az://CONTAINER/KEY``, by obstore.

A key that is an object is one file; otherwise what lies below it as a folder is meant.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from governed_api.regular_files import KEY_BYTES, read_regular
from governed_serving.sources.errors import Changed, Refused, Unavailable
from governed_serving.sources.names import MAX_FILES, MOST_LISTED, safe
from governed_serving.sources.source import Access, Listed, Part
from governed_serving.sources.web import Web

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta
    from obstore.store import ObjectStore

__all__ = ["Objects"]

_CHUNK = 1 << 20
_CLIENT = {
    "connect_timeout": timedelta(seconds=10),
    "read_timeout": timedelta(seconds=60),
    "timeout": timedelta(hours=12),
}
_RETRY = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
}
"""Of a single request; a file that is cut off goes on where it was, see download.py."""


class Objects:
    """Without keys the storage is asked as anybody. Raises Refused for an endpoint or keys of the wrong kind."""

    def __init__(self, uri: str, access: Access) -> None:
        self.uri = uri
        scheme, _, rest = uri.partition("://")
        bucket, _, self._key = rest.partition("/")
        self._key = self._key.rstrip("/")
        self.single = False
        if access.endpoint:
            Web(access.endpoint).close()  # an address that may be called
        try:
            self._store = _STORES[scheme](bucket, access)
        except ImportError:
            raise Refused(f"{uri}: expected the package obstore: pip install 'governed-models[objects]'") from None
        except Exception as error:  # obstore's own kinds, for keys that it can't read
            raise Refused(f"{uri}: {_brief(error)}; correct storage.secretRef and storage.endpoint") from error

    def files(self, wanted: Callable[[str], bool]) -> list[Listed]:
        """The object, or those below the prefix."""
        import obstore

        listed: list[Listed] = []
        with _asking(self.uri):
            try:
                meta = obstore.head(self._store, self._key)
            except FileNotFoundError:
                meta = None
            if meta is not None:
                self.single = True
                return [_listed(safe(self._key.rpartition("/")[2]), meta)]
            prefix = f"{self._key}/"
            seen = 0
            for page in obstore.list(self._store, prefix, chunk_size=1000):
                seen += len(page)
                if seen > MOST_LISTED:
                    raise Refused(f"{self.uri}: expected at most {MOST_LISTED} objects below it, found more")
                for object_ in page:
                    name = str(object_["path"]).removeprefix(prefix)
                    if name and wanted(safe(name)):
                        listed.append(_listed(name, object_))
                if len(listed) > MAX_FILES:
                    break
        if not listed:
            raise Refused(f"{self.uri}: expected an object, or objects below it, found none; look at the key")
        return listed

    @contextmanager
    def read(self, file: Listed, offset: int, version: str) -> Iterator[Part]:
        """By a range; If-Match holds what was begun."""
        import obstore

        key = self._key if self.single else f"{self._key}/{file.path}"
        options: dict[str, object] = {"range": {"offset": offset}} if offset else {}
        if version:
            options["if_match"] = version
        with _asking(f"{self.uri}, {file.path}"):
            answer = obstore.get(self._store, key, options=options or None)
            meta = answer.meta
            yield Part(answer.range[0], meta["size"], meta.get("e_tag") or "", _chunks(answer, self.uri))

    def close(self) -> None:
        """Connections end by themselves."""


def _listed(name: str, meta: "ObjectMeta") -> Listed:
    return Listed(name, int(meta["size"]), version=meta.get("e_tag") or "")


def _chunks(answer: "GetResult", uri: str) -> Iterator[bytes]:
    with _asking(uri):
        for chunk in answer.stream(min_chunk_size=_CHUNK):
            yield bytes(chunk)


@contextmanager
def _asking(what: str) -> Iterator[None]:
    from obstore.exceptions import (
        BaseError,
        InvalidPathError,
        NotFoundError,
        PermissionDeniedError,
        PreconditionError,
        UnauthenticatedError,
    )

    try:
        yield
    except (FileNotFoundError, NotFoundError):
        raise Refused(f"{what}: expected an object, found none (404); look at bucket and key") from None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise Refused(
            f"{what}: the credentials of storage.secretRef, or none, give no right to it ({_brief(error)})"
        ) from error
    except PreconditionError as error:
        raise Changed(f"{what}: it is another object than a moment ago") from error
    except (InvalidPathError, ValueError) as error:
        raise Refused(f"{what}: {_brief(error)}") from error
    except (BaseError, OSError) as error:
        raise Unavailable(f"{what}: {_brief(error)}") from error


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split()).partition(" Debug source:")[0][:300]


def _options(access: Access) -> dict[str, object]:
    plain = access.endpoint.startswith("http:")
    authority = {"root_certificate": read_regular(access.ca, KEY_BYTES, follow=True)} if access.ca else {}
    return {"client_options": {**_CLIENT, "allow_http": plain, **authority}, "retry_config": _RETRY}


def _s3(bucket: str, access: Access) -> "ObjectStore":
    from obstore.store import S3Store

    keys = access.keys
    config: dict[str, str | bool] = {"region": access.region or "us-east-1"}
    if access.endpoint:
        config["endpoint"] = access.endpoint
    if user := keys.get("access-key-id", "AWS_ACCESS_KEY_ID"):
        config["access_key_id"] = user
        config["secret_access_key"] = keys.get("secret-access-key", "AWS_SECRET_ACCESS_KEY")
        if token := keys.get("session-token", "AWS_SESSION_TOKEN"):
            config["token"] = token
    else:
        config["skip_signature"] = True
    return S3Store(bucket, config=config, **_options(access))


def _gs(bucket: str, access: Access) -> "ObjectStore":
    from obstore.store import GCSStore

    config: dict[str, str | bool] = {}
    if access.endpoint:
        config["base_url"] = access.endpoint
    if key := access.keys.get("service-account.json", "key.json"):
        config["service_account_key"] = key
    elif token := access.keys.get("token"):
        config["bearer_token"] = token
    else:
        config["skip_signature"] = True
    return GCSStore(bucket, config=config, **_options(access))


def _az(container: str, access: Access) -> "ObjectStore":
    from obstore.store import AzureStore

    keys = access.keys
    account = keys.get("account-name", "AZURE_STORAGE_ACCOUNT")
    if not account:
        raise ValueError("expected account-name in the Secret: Azure's containers belong to an account")
    config: dict[str, str | bool] = {"account_name": account}
    if access.endpoint:
        config["endpoint"] = access.endpoint
    if key := keys.get("account-key", "AZURE_STORAGE_KEY"):
        config["account_key"] = key
    elif sas := keys.get("sas-token", "AZURE_STORAGE_SAS_TOKEN"):
        config["sas_key"] = sas
    else:
        config["skip_signature"] = True
    return AzureStore(container, config=config, **_options(access))


_STORES: dict[str, Callable[[str, Access], "ObjectStore"]] = {"s3": _s3, "gs": _gs, "az": _az}
