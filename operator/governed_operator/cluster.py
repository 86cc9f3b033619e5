"""The API server, through the transport of the kubernetes client's asyncio side.

Requests go through its ApiClient (TLS, tokens and their rotation, connection pool) as plain JSON: the typed models would
cost more CPU than everything else that the operator does.
"""

import json
import os
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config

from governed_api.names import FIELD_MANAGER
from governed_operator.kinds import Kind

Object = dict[str, Any]
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
TIMEOUT = 30.0


class ApiError(Exception):
    """The API server refused, or can't be reached (status 0)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{message or reason} ({status})")
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def namespace_ends(self) -> bool:
        """Nothing can be made in a namespace that is being deleted: no error of ours."""
        return self.status == 403 and "because it is being terminated" in self.message


class Cluster:
    """One API server."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self._host = api.configuration.host.rstrip("/")

    @classmethod
    async def connect(cls) -> "Cluster":
        """With the pod's service account, otherwise the user's kubeconfig."""
        try:
            config.load_incluster_config()
        except config.ConfigException:
            # named explicitly: the library reads KUBECONFIG when it is imported
            await config.load_kube_config(config_file=os.environ.get("KUBECONFIG"))
        configuration = client.Configuration.get_default_copy()
        configuration.connection_pool_maxsize = 128
        return cls(client.ApiClient(configuration))

    @property
    def api(self) -> client.ApiClient:
        return self._api

    async def close(self) -> None:
        await self._api.close()

    async def _send(self, method: str, path: str, body: Object | None, media: str, limits: Any) -> Any:
        settings = await self._api.configuration.auth_settings()
        headers = {s["key"]: s["value"] for s in settings.values() if s["value"]}
        headers |= {"Content-Type": media, "Accept": "application/json"}
        try:
            return await self._api.rest_client.request(
                method, self._host + path, headers=headers, body=body, _request_timeout=limits
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, "Unreachable", f"{method} {path}: {str(error) or type(error).__name__}") from error

    async def request(
        self, method: str, path: str, body: Object | None = None, *, media: str = "application/json", **query: str
    ) -> Object:
        """The answer's JSON. Raises ApiError."""
        if query:
            path = f"{path}?{urlencode(query)}"
        answer = await self._send(method, path, body, media, aiohttp.ClientTimeout(total=TIMEOUT))
        try:
            data = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, "Unreachable", f"{method} {path}: {str(error) or type(error).__name__}") from error
        try:
            found: Object = json.loads(data)
        except ValueError:
            found = {"message": data.decode(errors="replace")[:300]}
        if answer.status >= 400:
            raise ApiError(answer.status, found.get("reason", ""), found.get("message", ""))
        return found

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """None when there is no such object."""
        try:
            return await self.request("GET", kind.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def apply(self, kind: Kind, manifest: Object, *, dry_run: bool = False) -> Object:
        """Server-side apply with our one field manager; conflicts are ours to win: we only name fields that we own."""
        metadata = manifest["metadata"]
        path = kind.path(metadata.get("namespace"), metadata["name"])
        query = {"fieldManager": FIELD_MANAGER, "force": "true"} | ({"dryRun": "All"} if dry_run else {})
        return await self.request("PATCH", path, manifest, media=APPLY, **query)

    async def create(self, kind: Kind, manifest: Object) -> Object | None:
        """None when it is there already."""
        try:
            path = kind.path(manifest["metadata"].get("namespace"))
            return await self.request("POST", path, manifest, fieldManager=FIELD_MANAGER)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return None
            raise

    async def delete(self, kind: Kind, namespace: str | None, name: str, uid: str) -> None:
        """Delete exactly the object that was seen; its dependents go in the background."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self.request("DELETE", kind.path(namespace, name), body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def patch_status(self, kind: Kind, namespace: str, name: str, status: Object) -> Object:
        path = kind.path(namespace, name, "status")
        return await self.request("PATCH", path, {"status": status}, media=MERGE, fieldManager=FIELD_MANAGER)

    async def pages(self, kind: Kind, selector: str, limit: int = 500) -> AsyncIterator[tuple[list[Object], str]]:
        """(objects, resourceVersion) page by page."""
        query: dict[str, Any] = {"limit": str(limit)} | ({"labelSelector": selector} if selector else {})
        while True:
            found = await self.request("GET", kind.path(), **query)
            yield found["items"], found["metadata"]["resourceVersion"]
            if not found["metadata"].get("continue"):
                return
            query["continue"] = found["metadata"]["continue"]

    async def watch(
        self, kind: Kind, selector: str, version: str, seconds: int, silence: float
    ) -> AsyncIterator[Object]:
        """Raw watch events with bookmarks. Raises ApiError when it breaks, or says nothing for ``silence`` seconds."""
        query = {
            "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version, "timeoutSeconds": str(seconds),
        }  # fmt: skip
        if selector:
            query["labelSelector"] = selector
        limits = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=silence)
        answer = await self._send("GET", f"{kind.path()}?{urlencode(query)}", None, "application/json", limits)
        try:
            if answer.status >= 400:
                found = json.loads(await answer.read())
                raise ApiError(answer.status, found.get("reason", ""), found.get("message", ""))
            async for line in answer.response.content:
                yield json.loads(line)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiError(0, "Unreachable", f"watch {kind.plural}: {str(error) or type(error).__name__}") from error
        finally:
            answer.response.close()
