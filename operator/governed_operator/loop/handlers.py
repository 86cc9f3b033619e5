"""kopf's handlers: only decorators and hand-over. on.event writes nothing to objects, so a converged system stays
silent."""

import logging
from typing import Any

import kopf

from governed_api.names import GROUP, PLURAL, VERSION
from governed_operator.kube.cluster import PAGE
from governed_operator.loop.kopf_storage import NoDiffBase, NoProgress
from governed_operator.loop.operator_process import OperatorProcess

logging.getLogger("kopf.objects").setLevel(logging.WARNING)


@kopf.on.login()
def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """Service account in a cluster, kubeconfig outside; never through the synchronous client."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


@kopf.on.startup()
async def start(memo: kopf.Memo, settings: kopf.OperatorSettings, **_: object) -> None:
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.watching.server_timeout = 290
    settings.watching.client_timeout = 320
    settings.watching.chunk_size = PAGE
    # A worker per model keeps its last event, decoded, until it ends: at a start those of all models.
    settings.queueing.idle_timeout = 0.5
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.progress_storage = NoProgress()
    memo.process = await OperatorProcess.create()
    settings.scanning.disabled = bool(memo.process.namespaces)  # no right to look at namespaces and definitions
    await memo.process.start()
    await memo.process.listed()


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: object) -> None:
    await memo.process.stop()


@kopf.on.event(GROUP, VERSION, PLURAL)
async def model_changed(event: kopf.RawEvent, memo: kopf.Memo, **_: object) -> None:
    memo.process.model_event(event["type"], dict(event["object"]))
