import os
import sys
from pathlib import Path

from governed_api.resolved import ResolvedModel
from governed_serving import log, trace, write_report

trace("trainer")
how = Path(os.environ["HOME"], "trainer-exits")
if how.exists():
    codes = how.read_text().split()
    how.write_text(" ".join(codes[1:]) or "0")
    if codes[0] != "0":
        log("spec.lifecycle.training.data.label: y is not a column", "error")
        sys.exit(int(codes[0]))
model = ResolvedModel.load(os.environ["GOVERNED_SPEC"])
write_report(
    "trainer",
    {
        "phase": "Succeeded",
        "trainingHash": model.training_hash(),
        "artefact": {"digest": "sha256:" + "ab" * 32, "blob": "b", "variant": "float"},
    },
)
