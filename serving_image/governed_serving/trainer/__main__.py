"""`python -m governed_serving.trainer`: the Job, configured by its environment (governed_api.runtime).

Exit codes: 0 the model is in the archive; 2 the manifest or its data can't be trained on; 65 (EX_DATAERR) training ran
and nothing may ship; 1 anything else, where another try may help. The operator knows 2 and 65 as final.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from governed_api import runtime
from governed_api.resolved import ResolvedModel
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import ArchiveError
from governed_serving.crypto import CryptoError, Keyring, coin_key, load_kek
from governed_serving.environment import InvalidSettings, PodEnvironment
from governed_serving.report import ReportWriter
from governed_serving.trainer.errors import InvalidTraining, TrainingError
from governed_serving.trainer.job import Dependencies, Job
from governed_serving.trainer.masking import masker_of, scanner
from governed_serving.trainer.progress import Narrator

INVALID, FAILED, RETRY = 2, 65, 1


def main() -> int:
    """Run the Job; what goes wrong becomes one line, phase Failed in the report, and an exit code."""
    with Narrator() as narrator:
        env = PodEnvironment()
        try:
            resolved = env.model()
            report = ReportWriter(env.required(runtime.REPORT, "the address of the GovernanceReport"))
        except InvalidSettings as error:
            narrator.fail(str(error))
            return INVALID
        return attempt(lambda: _run(resolved, report, narrator, env), resolved, report, narrator)


def attempt(run: Callable[[], object], resolved: ResolvedModel, report: ReportWriter, narrator: Narrator) -> int:
    """Exit code of ``run``, its error told."""
    try:
        run()
    except (InvalidSettings, InvalidTraining) as error:
        return _failed(str(error), INVALID, resolved, report, narrator)
    except TrainingError as error:
        return _failed(str(error), FAILED, resolved, report, narrator)
    except (ArchiveError, CryptoError) as error:
        return _failed(str(error), RETRY, resolved, report, narrator)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(f"{where}{error.strerror or error}", RETRY, resolved, report, narrator)
    return 0


def _run(resolved: ResolvedModel, report: ReportWriter, narrator: Narrator, env: PodEnvironment) -> None:
    kek_file = env.required_path(runtime.KEK_FILE, "the path of the model's key-encryption key")
    url = env.required_url(runtime.ARCHIVE_URL, "the archive's address")
    data = env.required_path(runtime.DATA_DIR, "the data volume's folder")
    kek = load_kek(kek_file)
    with ArchiveClient(url, env.token(), resolved.name, awaits_token=True) as archive:
        keyring = Keyring(kek, archive.keysets())
        rooms = Dependencies(
            archive=archive,
            report=report,
            data_cipher=lambda: keyring.keyset("data"),
            artefact_cipher=lambda: keyring.keyset("artefact"),
            coin_key=lambda: coin_key(keyring),
            scanner=scanner(),
            masker=masker_of(resolved.spec.governance.privacy.masking, keyring),
        )
        source = env.path(runtime.SOURCE_DIR) or Path()
        Job(resolved, rooms, source=source, data=data, narrator=narrator).run()


def _failed(message: str, code: int, resolved: ResolvedModel, report: ReportWriter, narrator: Narrator) -> int:
    line = " ".join(message.split())
    narrator.fail(line)
    report.update("trainer", {"phase": "Failed", "message": line, "trainingHash": resolved.training_hash()})
    if not report.flush():
        narrator.fail(f"{line} (and the report could not be written)")
    return code


if __name__ == "__main__":
    sys.exit(main())
