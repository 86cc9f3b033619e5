"""The artefact format: manifest, deterministic tar, verified directory, shared input preparation."""

from governed_serving.artefact.errors import ArtefactError, MalformedArtefact, TamperedArtefact, Untried
from governed_serving.artefact.graph import NO_FILES, Graph, Tensor
from governed_serving.artefact.independence import Independence, covering, row_independence
from governed_serving.artefact.manifest import (
    BASE_RULE,
    FORMAT,
    RULE,
    Coin,
    Feature,
    Lineage,
    Manifest,
    Output,
    class_meant,
    decode_manifest,
    encode_manifest,
)
from governed_serving.artefact.package import COIN_KEY, Artefact, digest, load, pack, packed_folder, unpack, write
from governed_serving.artefact.segmentation import CJK_CHARACTERS, segment
from governed_serving.artefact.text import TOKEN_INPUTS, TOKENS_READ, TOKENS_TRUNCATED, Pooling, Text

__all__ = [
    "BASE_RULE",
    "CJK_CHARACTERS",
    "COIN_KEY",
    "FORMAT",
    "NO_FILES",
    "RULE",
    "TOKENS_READ",
    "TOKENS_TRUNCATED",
    "TOKEN_INPUTS",
    "Artefact",
    "ArtefactError",
    "Coin",
    "Feature",
    "Graph",
    "Independence",
    "Lineage",
    "MalformedArtefact",
    "Manifest",
    "Output",
    "Pooling",
    "TamperedArtefact",
    "Tensor",
    "Text",
    "Untried",
    "class_meant",
    "covering",
    "decode_manifest",
    "digest",
    "encode_manifest",
    "load",
    "pack",
    "packed_folder",
    "row_independence",
    "segment",
    "unpack",
    "write",
]
