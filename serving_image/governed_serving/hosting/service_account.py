"""How a pod speaks to the API server: with its service account's token, which kubelet replaces on disk."""

import ssl
from collections.abc import Mapping
from pathlib import Path

import httpx

__all__ = ["ACCOUNT", "account_client"]

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def account_client(
    account: Path = ACCOUNT,
    transport: httpx.BaseTransport | None = None,
    *,
    headers: Mapping[str, str] = {},
    timeout: httpx.Timeout = httpx.Timeout(5.0),
) -> httpx.Client:
    """Made for one exchange: the token is read now."""
    shown = {"accept": "application/json", **headers}
    token, authority = account / "token", account / "ca.crt"
    if token.exists():
        shown["authorization"] = f"Bearer {token.read_text().strip()}"
    verify: ssl.SSLContext | bool = True
    if authority.exists() and transport is None:
        verify = ssl.create_default_context(cafile=str(authority))
    return httpx.Client(headers=shown, verify=verify, timeout=timeout, transport=transport, trust_env=False)
