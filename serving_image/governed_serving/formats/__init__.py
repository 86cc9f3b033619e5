"""What a model's files are: read and judged before anything runs."""

from governed_serving.formats.background import BACKGROUND_BYTES, background_columns, header_of
from governed_serving.formats.description import Declared, Node, describe, rowwise, settled
from governed_serving.formats.onnx_file import MAX_BYTES, MAX_TENSORS, OnnxFile, content_of, read, volume_for
from governed_serving.formats.text_folder import TextFiles, TextOutput, is_text_folder, read_text_folder
from governed_serving.formats.text_manifest import text_manifest
from governed_serving.formats.tokenizer_file import check_tokenizer
from governed_serving.formats.trial_process import Said, TextAnswer, TrialAnswer, TrialRequest, run_trial

__all__ = [
    "BACKGROUND_BYTES",
    "MAX_BYTES",
    "MAX_TENSORS",
    "Declared",
    "Node",
    "OnnxFile",
    "Said",
    "TextAnswer",
    "TextFiles",
    "TextOutput",
    "TrialAnswer",
    "TrialRequest",
    "background_columns",
    "check_tokenizer",
    "content_of",
    "describe",
    "header_of",
    "is_text_folder",
    "read",
    "read_text_folder",
    "rowwise",
    "run_trial",
    "settled",
    "text_manifest",
    "volume_for",
]
