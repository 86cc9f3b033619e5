"""The artefact format: manifest, deterministic tar, verified directory, shared input preparation."""

from governed_serving.artefact.errors import ArtefactError, MalformedArtefact, TamperedArtefact, Untried
from governed_serving.artefact.graph import NO_FILES, Graph, Tensor
from governed_serving.artefact.independence import Independence, covering, row_independence
from governed_serving.artefact.manifest import (
    FORMAT,
    Feature,
    Lineage,
    Manifest,
    Output,
    class_meant,
    decode_manifest,
    encode_manifest,
)
from governed_serving.artefact.package import Artefact, digest, load, pack, packed_folder, unpack, write
from governed_serving.artefact.segmentation import CJK_CHARACTERS, segment

__all__ = [
    "CJK_CHARACTERS",
    "FORMAT",
    "NO_FILES",
    "Artefact",
    "ArtefactError",
    "Feature",
    "Graph",
    "Independence",
    "Lineage",
    "MalformedArtefact",
    "Manifest",
    "Output",
    "TamperedArtefact",
    "Tensor",
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
