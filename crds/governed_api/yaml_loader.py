"""YAML as ``kubectl`` reads it."""

import yaml

__all__ = ["Loader"]


class Loader(yaml.SafeLoader):
    """A day or time without quotes is a string, not an object."""


def _text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> object:
    return loader.construct_scalar(node)


Loader.add_constructor("tag:yaml.org,2002:timestamp", _text)
