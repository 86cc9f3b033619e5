import os
import sys
from pathlib import Path

from governed_serving import serve, trace

if sys.argv[1] == "fetch":
    trace("fetch")
    Path(os.environ["GOVERNED_MODEL_DIR"], "model.onnx").write_text(os.environ["GOVERNED_ARTEFACT_DIGEST"])
else:
    Path(os.environ["GOVERNED_ARCHIVE_DIR"], "ledger").write_bytes(b"ciphertext")
    serve("archive")
