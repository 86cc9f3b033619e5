"""The inference Deployment: fetch → auditor (sidecar) → server, explainer, optional runtime."""

from collections.abc import Mapping

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.model import GovernedModelSpec, Model, Runtime
from governed_api.names import LABEL_COMPONENT, LABEL_MODEL, LABEL_REVISION, LABEL_TRACK
from governed_api.quantities import Quantity
from governed_api.resources import Resources
from governed_api.roles import Role
from governed_api.storage import inside_of
from governed_operator.desired import environment as env
from governed_operator.desired import pod
from governed_operator.desired.canonical import canonical
from governed_operator.desired.decision import Revision
from governed_operator.desired.manifest import Manifest, Subject, manifest, model_labels
from governed_operator.kube.kinds import DEPLOYMENT

COMPONENT = "predictor"
RUNTIME_TMP = "runtime-tmp"
"""A foreign runtime's own: nothing that ours write there is its to read."""
SHARED_MEMORY = "shared-memory"
ENDPOINT_DELAY = 5
"""Seconds that a stopping server still answers, until no load balancer sends to it any more."""


def selector(subject: Subject, track: str | None = None) -> dict[str, str]:
    """Labels of serving pods; without a track, those of all revisions."""
    out = {LABEL_MODEL: subject.name, LABEL_COMPONENT: COMPONENT}
    return out | {LABEL_TRACK: track} if track else out


def deployment(subject: Subject, revision: Revision, track: str, replicas: int | None) -> Manifest:
    """``replicas`` None: an autoscaler owns the field."""
    labels = {**model_labels(subject, COMPONENT), **dict(subject.labels), LABEL_TRACK: track}
    spec: Manifest = {
        **({} if replicas is None else {"replicas": replicas}),
        "selector": {"matchLabels": selector(subject, track)},
        "revisionHistoryLimit": 3,
        "progressDeadlineSeconds": 300,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
        "template": {
            "metadata": {"labels": {**labels, LABEL_REVISION: revision.name}},
            "spec": inference_pod(subject, revision, track),
        },
    }
    out = manifest(DEPLOYMENT, object_names.deployment(subject.name, track), subject, COMPONENT, spec=spec)
    out["metadata"]["labels"] |= {LABEL_TRACK: track, LABEL_REVISION: revision.name}
    return out


def inference_pod(subject: Subject, revision: Revision, track: str) -> Manifest:
    spec = revision.model.spec
    runtime = spec.predictor.model.runtime
    init = [auditor_container(subject, revision, track)]
    if _fetches(spec):
        init.insert(0, fetch_container(subject, revision))
    containers = [server_container(subject, revision, track)]
    if spec.explainer:
        containers.append(explainer_container(subject, revision, track))
    if runtime:
        containers.append(runtime_container(subject, runtime, revision))
    return {
        **pod.account(object_names.account(subject.name)),
        "terminationGracePeriodSeconds": ENDPOINT_DELAY + spec.predictor.timeout + 25,
        "securityContext": pod.security_context(),
        "topologySpreadConstraints": [
            _spread(subject, track, key) for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
        ],
        **pod.scheduling(subject),
        "initContainers": init,
        "containers": containers,
        "volumes": _volumes(subject, revision),
    }


def _spread(subject: Subject, track: str, key: str) -> Manifest:
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector(subject, track)},
    }


def _volumes(subject: Subject, revision: Revision) -> list[Manifest]:
    spec = revision.model.spec
    out = [
        pod.spec_volume(object_names.serving_config(revision.model.name, revision.document)),
        *(pod.keys_volume(subject.name, spec, role) for role in _roles(spec)),
        pod.memory_volume("model", canonical(spec.predictor.model.room)),
        {"name": "spool", "emptyDir": {"sizeLimit": canonical(spec.governance.audit.spool_size)}},
        pod.memory_volume("tmp", "64Mi"),
        pod.account_volume(),
    ]
    if spec.predictor.model.runtime:
        out.append(pod.memory_volume(RUNTIME_TMP, "64Mi"))
        if spec.predictor.model.runtime.shared_memory:
            out.append(pod.memory_volume(SHARED_MEMORY, canonical(spec.predictor.model.runtime.shared_memory)))
        if spec.predictor.model.is_mounted:
            out.append(pod.source_volume(spec.predictor.model.storage_uri, pod.WEIGHTS))
    if _draws_tokens(spec):  # with room for two documents of callers, the old one and the new
        out.append(pod.memory_volume(object_names.POD_TOKENS, "4Mi" if spec.authenticates else "1Mi"))
    if spec.authenticates:
        name = object_names.callers(subject.name)
        out.append({"name": "callers", "configMap": {"name": name, "optional": True}})
        out.append(pod.secret_volume("callers-key", name))
    if spec.predictor.model.is_mounted:
        out.append(pod.source_volume(spec.predictor.model.storage_uri))
    return out


def _roles(spec: GovernedModelSpec) -> list[Role]:
    """Of the pod's containers that are ours."""
    fetch = [Role.FETCH] if _fetches(spec) else []
    return [*fetch, Role.AUDITOR, Role.SERVER, *([Role.EXPLAINER] if spec.explainer else [])]


def _fetches(spec: GovernedModelSpec) -> bool:
    """The model's files are verified before anything starts: a runtime's where the spec names them."""
    return spec.predictor.model.runtime is None or spec.predictor.model.is_mounted


def _mounts(role: Role, *, model_writable: bool = False, spool: bool = True, reports: bool = True) -> list[Manifest]:
    out = [pod.mount("spec", rt.MOUNT_SPEC, read_only=True), pod.keys_mount(role)]
    out.append(pod.mount("model", rt.MOUNT_MODEL, read_only=not model_writable))
    if spool:
        out.append(pod.mount("spool", rt.MOUNT_SPOOL))
    out.append(pod.mount("tmp", "/tmp"))
    return [*out, pod.account_mount()] if reports else out


def _draws_tokens(spec: GovernedModelSpec) -> bool:
    """Containers of a pod share its loopback, so the ports of ours ask for tokens that a foreign runtime hasn't; and
    nor has any other pod, where callers must be known."""
    return spec.predictor.model.runtime is not None or spec.authenticates


def _access_mounts(revision: Revision, *, makes: bool = False) -> list[Manifest]:
    """The auditor, which starts first, makes the tokens."""
    spec = revision.model.spec
    tokens = pod.mount(object_names.POD_TOKENS, rt.MOUNT_POD_TOKENS, read_only=not makes)
    callers = [
        pod.mount("callers", rt.MOUNT_CALLERS, read_only=True),
        pod.mount("callers-key", rt.MOUNT_CALLERS_KEY, read_only=True),
    ]
    return [*([tokens] if _draws_tokens(spec) else []), *(callers if spec.authenticates else [])]


def _environment(subject: Subject, revision: Revision, track: str, port: int) -> list[Manifest]:
    return [
        *env.model_container(subject.namespace, subject.name),
        *env.revision(revision.name, revision.artefact),
        env.variable(rt.TRACK, track),
        env.variable(rt.MODEL_DIR, rt.MOUNT_MODEL),
        env.variable(rt.SPOOL_DIR, rt.MOUNT_SPOOL),
        env.variable(rt.HTTP_PORT, port),
        *(env.pod_tokens() if _draws_tokens(revision.model.spec) else []),
        *(env.callers() if revision.model.spec.authenticates else []),
    ]


def fetch_container(subject: Subject, revision: Revision) -> Manifest:
    """Artefact by digest → verified → decrypted into the memory-backed volume."""
    imported = revision.model.spec.predictor.model.is_mounted
    mounts = _mounts(Role.FETCH, model_writable=True, spool=False)
    variables = [
        *env.model_container(subject.namespace, subject.name),
        *env.revision(revision.name, revision.artefact),
        env.variable(rt.MODEL_DIR, rt.MOUNT_MODEL),
    ]
    if imported:
        mounts.append(pod.mount("source", rt.MOUNT_SOURCE, read_only=True))
        variables.append(env.variable(rt.SOURCE_DIR, rt.MOUNT_SOURCE))
    return pod.container(
        "fetch",
        subject.settings.images.server,
        pod.python_module("governed_serving.archive", "fetch"),
        subject.settings.pull_policy,
        env=variables,
        resources={"requests": {"cpu": "50m", "memory": "128Mi"}},
        volumeMounts=mounts,
    )


def auditor_container(subject: Subject, revision: Revision, track: str) -> Manifest:
    """A native sidecar: it stops after the server has drained, so that it ships the last records. Its startup probe
    holds back the containers behind it, at a pod's first start alone; a later restart stops none of them."""
    variables = _environment(subject, revision, track, rt.PORT_AUDITOR)
    if revision.model.spec.governance.bias:  # counterfactuals are asked of the live model
        variables.append(env.variable(rt.PREDICTOR_URL, env.loopback(rt.PORT_INTERNAL)))
    if revision.model.spec.authenticates:  # the one container of the pod that listens to the API server
        variables.append(env.callers_url(subject.namespace, subject.name))
    if revision.model.spec.explainer:  # who contests a decision is shown why it was made
        variables.append(env.variable(rt.EXPLAINER_URL, env.loopback(rt.PORT_EXPLAINER)))
    return pod.container(
        "auditor",
        subject.settings.images.auditor,
        pod.python_module("governed_serving.auditor"),
        subject.settings.pull_policy,
        restartPolicy="Always",
        env=variables,
        ports=[{"name": "auditor", "containerPort": rt.PORT_AUDITOR, "protocol": "TCP"}],
        **pod.patient_probes("auditor"),
        # a start takes about 1.1 s of a core, on a full node a share of this size: 11 s; at rest it needs 5m
        resources={"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        volumeMounts=[*_mounts(Role.AUDITOR), *_access_mounts(revision, makes=True)],
    )


def serves_grpc(spec: GovernedModelSpec) -> bool:
    """The Open Inference Protocol has a gRPC side, OpenAI's has none."""
    runtime = spec.predictor.model.runtime
    return runtime is None or runtime.protocol == "v2"


def server_container(subject: Subject, revision: Revision, track: str) -> Manifest:
    spec = revision.model.spec
    variables = [
        *_environment(subject, revision, track, rt.PORT_HTTP),
        env.variable(rt.INTERNAL_PORT, rt.PORT_INTERNAL),
    ]
    ports = [{"name": "http", "containerPort": rt.PORT_HTTP, "protocol": "TCP"}]
    if serves_grpc(spec):
        variables.append(env.variable(rt.GRPC_PORT, rt.PORT_GRPC))
        ports.append({"name": "grpc", "containerPort": rt.PORT_GRPC, "protocol": "TCP"})
    if spec.explainer:
        variables.append(env.variable(rt.EXPLAINER_URL, env.loopback(rt.PORT_EXPLAINER)))
    if spec.predictor.model.runtime:
        variables.append(env.variable(rt.UPSTREAM_URL, env.loopback(spec.predictor.model.runtime.port)))
    return pod.container(
        "server",
        subject.settings.images.server,
        pod.python_module("governed_serving.server"),
        subject.settings.pull_policy,
        env=variables,
        ports=ports,
        **pod.probes("http"),
        lifecycle={"preStop": {"sleep": {"seconds": ENDPOINT_DELAY}}},
        resources=pod.resources(_of_the_server(spec.predictor.model), "100m", "256Mi"),
        volumeMounts=[*_mounts(Role.SERVER), *_access_mounts(revision)],
    )


def _of_the_server(model: Model) -> Resources:
    """Beside a runtime without resources of its own, the server has no use for the accelerators that both would ask
    for: a node would need twice as many."""
    asked = model.resources
    if model.runtime is None or model.runtime.resources is not None:
        return asked

    def native(amounts: Mapping[str, Quantity]) -> dict[str, Quantity]:
        return {name: amount for name, amount in amounts.items() if name in ("cpu", "memory", "ephemeral-storage")}

    return Resources(requests=native(asked.requests), limits=native(asked.limits))


def explainer_container(subject: Subject, revision: Revision, track: str) -> Manifest:
    explainer = revision.model.spec.explainer
    assert explainer is not None
    images = subject.settings.images
    image = {None: images.explainer, "alibi": images.explainer_alibi, "captum": images.explainer_captum}[
        explainer.engine
    ]
    # another's engine is a process beside ours, of some 320 MiB once its libraries are loaded
    memory = "768Mi" if explainer.engine else "256Mi"
    return pod.container(
        "explainer",
        image,
        pod.python_module("governed_serving.explainer"),
        subject.settings.pull_policy,
        env=[
            *_environment(subject, revision, track, rt.PORT_EXPLAINER),
            env.variable(rt.PREDICTOR_URL, env.loopback(rt.PORT_INTERNAL)),
        ],
        ports=[{"name": "explainer", "containerPort": rt.PORT_EXPLAINER, "protocol": "TCP"}],
        **pod.patient_probes("explainer"),
        resources=pod.resources(explainer.resources, "100m", memory),
        volumeMounts=[*_mounts(Role.EXPLAINER, reports=False), *_access_mounts(revision)],
    )


def runtime_container(subject: Subject, runtime: Runtime, revision: Revision) -> Manifest:
    """A foreign inference server behind our gateway; no key, no spool, no governed file is mounted into it but its own
    weights."""
    model = revision.model.spec.predictor.model
    mounts = [pod.mount(RUNTIME_TMP, "/tmp")]
    if runtime.shared_memory:
        mounts.append(pod.mount(SHARED_MEMORY, "/dev/shm"))
    if model.is_mounted:
        inside = inside_of(model.storage_uri or "")
        mounts.append(
            {**pod.mount(pod.WEIGHTS, rt.MOUNT_MODEL, read_only=True), **({"subPath": inside} if inside else {})}
        )
    variables = [{"name": one.name, "value": one.value} for one in runtime.env]
    probe = {"httpGet": {"path": runtime.health_path, "port": "runtime"}, "timeoutSeconds": 5}
    return pod.container(
        "runtime",
        runtime.image,
        list(runtime.command),
        subject.settings.pull_policy,
        **({"args": list(runtime.args)} if runtime.args else {}),
        **({"env": variables} if variables else {}),
        ports=[{"name": "runtime", "containerPort": runtime.port, "protocol": "TCP"}],
        startupProbe={**probe, "periodSeconds": 2, "failureThreshold": 300},
        readinessProbe={**probe, "periodSeconds": 5, "failureThreshold": 3},
        livenessProbe={**probe, "periodSeconds": 10, "failureThreshold": 6},
        lifecycle={"preStop": {"sleep": {"seconds": ENDPOINT_DELAY}}},
        resources=pod.resources(runtime.resources or model.resources, "100m", "256Mi"),
        volumeMounts=mounts,
    )
