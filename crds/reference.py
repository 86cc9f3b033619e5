"""Write or check crds/README.md: fields, conditions and reasons, as the typed contract has them.

``python crds/reference.py [--write | --check]``; without either the page is printed. The part above the marker is
written by hand and kept.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # when run as a script: the contract lies beside this file

from governed_api import conditions, schema
from governed_api.reasons import KubernetesReason, Reason

PAGE = Path(__file__).with_name("README.md")
MARK = "<!-- Generated below by `python crds/reference.py --write`; a test compares. -->"
MEANING = {
    conditions.READY: "The model serves this very spec; its reason is the first cause that says otherwise.",
    conditions.PREDICTOR_READY: "Serving pods run, verified and reachable.",
    conditions.EXPLAINER_READY: "The explainer of every serving pod is ready.",
    conditions.AUDITOR_READY: "The auditor of every serving pod is ready.",
    conditions.ARCHIVE_READY: "The namespace's archive answers.",
    conditions.ENCRYPTION_READY: "The key-encryption key is there, and the storage is encrypted where that is asked for.",  # noqa: E501
    conditions.QUOTA_ENFORCED: "Limits of requests, tokens and compute are in force.",
    conditions.POLICY_SATISFIED: "Every GovernancePolicy that is about it is met, or exempts it. Present only where one is.",  # noqa: E501
    conditions.BIAS_WITHIN_THRESHOLDS: "Every bias metric is within its thresholds; Unknown below `minSamples`.",
    conditions.MODEL_VERIFIED: "What serves has the digest of the artefact.",
    conditions.TRAINING_SUCCEEDED: "The trainer Job answered this training spec.",
    conditions.DEGRADED: "Something is wrong, whether or not the model serves.",
    conditions.RECONCILING: "kstatus: work is under way that time alone will finish. Present only while True.",
    conditions.KEY_READY: "All its keys are its own, and one at least lets somebody in.",
    conditions.MODELS_FOUND: "Every model that it names is there.",
    conditions.STALLED: "kstatus: nothing gets better until a person acts. Present only while True.",
}
"""What each condition says when it is True."""


def cell(text: str) -> str:
    """Text for one cell of a Markdown table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def limits(node: schema.Schema) -> str:
    """Type, choices, bounds and pattern of a field, in a few words."""
    words = [str(node.get("type") or ("integer or string" if "x-kubernetes-int-or-string" in node else "object"))]
    if "enum" in node:
        words = [" · ".join(str(choice) for choice in node["enum"])]
    least, most = ("minimum", "exclusiveMinimum", ">"), ("maximum", "exclusiveMaximum", "<")
    for bound, exclusive, sign in (least, most):
        if bound in node:
            words.append(f"{sign}{'' if node.get(exclusive) else '='} {node[bound]:g}")
    for bound, sign, unit in (
        ("minLength", "≥", "characters"), ("maxLength", "≤", "characters"), ("minItems", "≥", "items"),
        ("maxItems", "≤", "items"), ("maxProperties", "≤", "keys"),
    ):  # fmt: skip
        if bound in node:
            words.append(f"{sign} {node[bound]} {unit}")
    if "pattern" in node:
        words.append(f"`{node['pattern']}`")
    return cell(", ".join(words))


def fields(node: schema.Schema, path: str) -> Iterator[str]:
    """Table rows of every field below a node, in the order of the types."""
    required = set(node.get("required", ()))
    for name, below in node.get("properties", {}).items():
        here = f"{path}.{name}"
        plain = isinstance(below.get("default"), str | int | float)  # an object's default is that of its fields
        default = f"`{_plain(below['default'])}`" if plain and below["default"] != "" else ""
        what = "**required**" if name in required else default
        yield f"| `{here}` | {limits(below)} | {cell(what)} | {cell(below.get('description', ''))} |"
        inner = below.get("items", below)
        yield from fields(inner, here + ("[]" if "items" in below else ""))


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def rules(node: schema.Schema, path: str) -> Iterator[str]:
    """Table rows of the CEL rules that hold below a node."""
    for rule in node.get("x-kubernetes-validations", ()):
        yield f"| `{path}` | {cell(rule['message'])} |"
    for name, below in node.get("properties", {}).items():
        yield from rules(below, f"{path}.{name}" if path else name)
    if "items" in node:
        yield from rules(node["items"], f"{path}[]")


def generated() -> str:
    """Everything below the marker."""
    table = "| field | values | default | meaning |\n|---|---|---|---|"
    model = schema.model_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    report = schema.report_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    consumer = schema.consumer_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    policy = schema.policy_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    told = {"model": model, "consumer": consumer, "policy": policy}
    rows = {k: "\n".join(rules(v, "")).replace("| `` |", "| the resource |") for k, v in told.items()}
    consumers = (conditions.KEY_READY, conditions.MODELS_FOUND)
    parts = [
        MARK,
        "## Conditions\n\nAll are `metav1.Condition`s with `observedGeneration`. `kubectl wait --for=condition=Ready`.",
        "| condition | True means |\n|---|---|\n" + "\n".join(f"| `{k}` | {MEANING[k]} |" for k in conditions.TYPES),
        "Of a ModelConsumer:",
        "| condition | True means |\n|---|---|\n" + "\n".join(f"| `{k}` | {MEANING[k]} |" for k in consumers),
        "## Reasons\n\nA reason is stable; its message is for people and may change.",
        "| reason | meaning |\n|---|---|\n" + "\n".join(f"| `{r.value}` | {cell(r.description)} |" for r in Reason),
        "Kubernetes' own words that the operator tells apart; any other word of its or of a neighbour's is passed on:",
        "| reason | meaning |\n|---|---|\n"
        + "\n".join(f"| `{r.value}` | {cell(r.description)} |" for r in KubernetesReason),
        "## GovernedModel: spec\n\n" + table + "\n" + "\n".join(fields(model["properties"]["spec"], "spec")),
        "## GovernedModel: rules across fields\n\nChecked by the API server (CEL) and by `governed validate`.",
        f"| at | message |\n|---|---|\n{rows['model']}",
        "## GovernedModel: status\n\n" + table + "\n" + "\n".join(fields(model["properties"]["status"], "status")),
        "## ModelConsumer: spec\n\n" + table + "\n" + "\n".join(fields(consumer["properties"]["spec"], "spec")),
        "## ModelConsumer: rules across fields",
        f"| at | message |\n|---|---|\n{rows['consumer']}",
        "## ModelConsumer: status\n\n" + table + "\n" + "\n".join(fields(consumer["properties"]["status"], "status")),
        "## GovernancePolicy and ClusterGovernancePolicy: spec\n\nOf a ClusterGovernancePolicy an exemption names a "
        "`namespace` as well.\n\n" + table + "\n" + "\n".join(fields(policy["properties"]["spec"], "spec")),
        "## GovernancePolicy and ClusterGovernancePolicy: rules across fields",
        f"| at | message |\n|---|---|\n{rows['policy']}",
        "## GovernanceReport: status\n\n" + table + "\n" + "\n".join(fields(report["properties"]["status"], "status")),
    ]
    return "\n\n".join(parts) + "\n"


def page() -> str:
    """The whole page: the present head, and the generated part."""
    return PAGE.read_text().split(MARK)[0] + generated()


def main() -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write crds/README.md")
    parser.add_argument("--check", action="store_true", help="fail when crds/README.md differs")
    chosen = parser.parse_args()
    if chosen.write:
        PAGE.write_text(page())
    elif chosen.check:
        if PAGE.read_text() != page():
            print(f"{PAGE.name} differs from the types: run python crds/reference.py --write", file=sys.stderr)
            return 1
    else:
        print(page(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
