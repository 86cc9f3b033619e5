"""What a model takes and gives, where its file doesn't say so: names, datatypes, shapes, roles, classes."""

from typing import Annotated, Literal

from pydantic import Field

from governed_api.base import Part

__all__ = ["TensorInput", "TensorOutput"]

TensorDatatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]
InputRole = Literal["tabular", "tokens", "image", "audio", "state"]
OutputRole = Literal["score", "label", "logits", "probabilities", "embedding", "state"]

TensorName = Annotated[str, Field(min_length=1, max_length=253)]
ClassName = Annotated[str, Field(max_length=253)]
Size = Annotated[int, Field(ge=-1, le=2**31 - 1)]


class TensorInput(Part):
    """An input of the graph. What is left out is read from the graph; what contradicts it is refused."""

    name: TensorName
    """The graph's own name."""
    datatype: TensorDatatype | None = None
    """V2 datatype."""
    shape: list[Size] | None = Field(default=None, max_length=8)
    """-1: any size, which a request chooses. A size here narrows a dimension that the graph leaves free."""
    role: InputRole | None = None
    """tabular: columns of a table, named by columns: explained and audited. tokens, image, audio: taken as they are.
    state: what the model gave back last time; the client keeps it."""
    columns: list[TensorName] = Field(default=[], max_length=4096)
    """Names of the columns of a tabular matrix [N, F], in its order: the features of requests, explanations and
    audits."""
    missing: Literal["Refuse", "Accept"] = "Refuse"
    """NaN and null: Accept where the model was trained with gaps."""
    example: float | None = None
    """A value that the model accepts, such as 16000 for a sampling rate, for the requests that the importer makes
    up."""


class TensorOutput(Part):
    """An output of the graph."""

    name: TensorName
    """The graph's own name."""
    datatype: TensorDatatype | None = None
    """V2 datatype."""
    shape: list[Size] | None = Field(default=None, max_length=8)
    """-1: any size."""
    role: OutputRole | None = None
    """probabilities and label of a classifier, and score (what a regression predicts) are served, journalled, explained
    and audited as probabilities, label and prediction. logits, embedding, state: by the graph's name."""
    classes: list[ClassName] = Field(default=[], max_length=65_536)
    """Of probabilities: the class of each column. Filled in where the graph lists them."""
