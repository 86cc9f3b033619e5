"""Objects as YAML that ``kubectl`` reads as what they are."""

import re
from collections.abc import Iterable, Mapping

import yaml

__all__ = ["to_yaml"]

_BREAKS = re.compile("[\x85\u2028\u2029]")
"""Line breaks to a reader of YAML 1.1, which PyYAML writes as they are: quoted twice they are escaped."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"' if _BREAKS.search(data) else None)


_Dumper.add_representer(str, _Dumper.represent_str)
# What kubectl's reader takes for a number or a boolean and PyYAML's writer doesn't: a label of hexadecimal digits such
# as 3591085e15 must be quoted, too (go.yaml.in/yaml/v2, resolve.go).
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?0o[0-7_]+$"), list("-+0"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"[yYnN]$"), list("yYnN"))


def to_yaml(manifests: Iterable[Mapping[str, object]]) -> str:
    """A stream of documents; equal objects give equal bytes."""
    return yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True, explicit_start=True)
