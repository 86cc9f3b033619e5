"""The digest of the code behind an artefact or an explanation: it covers all that can run, and nothing that can't."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from governed_serving import code_closure
from governed_serving.code_closure import closure, digest
from governed_serving.explainer.service.model import CODE as EXPLAINER
from governed_serving.explainer.service.model import explainer_code
from governed_serving.trainer.job import CODE as TRAINER
from governed_serving.trainer.job import code_version
from unit.trainer.manifests import ADMISSIONS_BIAS, admissions, resolved

ENTRIES = {"trainer": TRAINER, "explainer": EXPLAINER}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A copy of the sources, which a test may change: top-level package → folder."""
    root = tmp_path_factory.mktemp("tree")
    ignored = shutil.ignore_patterns("__pycache__")
    return {
        name: Path(shutil.copytree(folder, root / name, ignore=ignored))
        for name, folder in code_closure.PACKAGES.items()
    }


def modules_of(tree: Mapping[str, Path]) -> dict[str, Path]:
    named = {}
    for top, folder in tree.items():
        for path in folder.rglob("*.py"):
            parts = [top, *path.relative_to(folder).with_suffix("").parts]
            named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_the_digest_changes_with_every_module_of_the_closure_and_with_no_other(
    tree: dict[str, Path], entry: str
) -> None:
    inside = closure([entry], tree)
    before = digest(inside)
    modules = modules_of(tree)
    assert len(inside) > 50
    assert len(modules.keys() - inside.keys()) > 50
    for name, path in modules.items():
        source = path.read_bytes()
        path.write_bytes(source + b"\nCHANGED = 1\n")
        # Only a changed module can lead elsewhere, and this line leads nowhere: the closure need not be walked again.
        assert (digest(inside) != before) == (name in inside), name
        path.write_bytes(source)
    assert digest(closure([entry], tree)) == before


def test_the_bins_of_the_drift_reference_are_part_of_the_version(tree: dict[str, Path]) -> None:
    """A reference with other bins is another artefact; the hand-kept list of rooms missed it."""
    path = tree["governed_serving"] / "fairness" / "monitoring" / "reference.py"
    source = path.read_text()
    assert "\nBINS = " in source
    before = digest(closure([TRAINER], tree))
    path.write_text(source.replace("\nBINS = ", "\nBINS = 1 + "))
    assert digest(closure([TRAINER], tree)) != before
    path.write_text(source)


@pytest.mark.parametrize(
    "added",
    [
        "from governed_serving.extra import value",
        "import governed_serving.extra",
        "from governed_serving import extra",
        "def later():\n    from governed_serving.extra import value",
        "class Late:\n    def method(self):\n        if self:\n            from governed_serving import extra as other",
        "from ..extra import value",
        "from .. import extra",
        "if TYPE_CHECKING:\n    pass\nelse:\n    from governed_serving import extra",
    ],
)
def test_whatever_an_import_looks_like_it_is_followed(tree: dict[str, Path], added: str) -> None:
    extra = tree["governed_serving"] / "extra.py"
    extra.write_text("value = 1\n")
    path = tree["governed_serving"] / "trainer" / "losses.py"
    source = path.read_text()
    assert "governed_serving.extra" not in closure([TRAINER], tree)
    path.write_text(f"{source}\n{added}\n")
    assert closure([TRAINER], tree)["governed_serving.extra"] == extra
    path.write_text(source)
    extra.unlink()


def test_imports_for_types_alone_shape_nothing(tree: dict[str, Path]) -> None:
    path = tree["governed_serving"] / "trainer" / "losses.py"
    source = path.read_text()
    path.write_text(f"{source}\nif TYPE_CHECKING:\n    from governed_serving.server import dataplane\n")
    assert "governed_serving.server" not in closure([TRAINER], tree)
    path.write_text(source)


def test_data_files_of_a_package_count_and_its_readme_does_not(tree: dict[str, Path]) -> None:
    room = tree["governed_serving"] / "trainer" / "generators"
    before = digest(closure([TRAINER], tree))
    (room / "README.md").write_text("other words")
    assert digest(closure([TRAINER], tree)) == before
    (room / "table.json").write_text("{}")
    after = digest(closure([TRAINER], tree))
    assert after != before
    (room / "table.json").write_text("[]")
    assert digest(closure([TRAINER], tree)) not in (before, after)
    (room / "table.json").unlink()


def test_a_moved_module_changes_the_digest(tree: dict[str, Path]) -> None:
    """The same bytes under another name are other code."""
    files = closure([TRAINER], tree)
    moved = {name.replace("trainer.losses", "trainer.loss"): path for name, path in files.items()}
    assert digest(moved) != digest(files)


def test_an_entry_that_is_gone_is_an_error_and_not_an_empty_closure(tree: dict[str, Path]) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"governed_serving\.trainer\.gone"):
        closure(["governed_serving.trainer.gone"], tree)


def test_the_digest_does_not_depend_on_where_the_packages_lie(tree: dict[str, Path]) -> None:
    """A checkout with its two source roots and an installed wheel with one give the same version."""
    code = "from governed_serving.trainer.job import code_version; print(code_version())"
    root = str(tree["governed_serving"].parent)
    out = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": root}, capture_output=True, text=True, check=True, cwd=root
    )
    assert out.stdout.strip() == code_version()


def test_the_digest_is_computed_once_in_a_process() -> None:
    first = explainer_code()
    started = time.thread_time()
    assert {explainer_code() for _ in range(1000)} == {first}
    assert time.thread_time() - started < 0.5


OURS = "sorted(n for n in sys.modules if n.partition('.')[0] in ('governed_api', 'governed_serving'))"
RUN_A_JOB = f"""
import json, sys
from pathlib import Path
import governed_serving.trainer.__main__
from governed_serving.trainer.job import Dependencies, Job
from governed_serving.trainer.masking import masker_of, scanner
from governed_serving.trainer.progress import Narrator
from governed_api.resolved import ResolvedModel
from unit.trainer.neighbours import AesCipher, MemoryArchive, MemoryReport

resolved = ResolvedModel.load(sys.argv[1])
masker = masker_of(resolved.spec.governance.privacy.masking, None)
cipher = AesCipher()
neighbours = Dependencies(MemoryArchive(), MemoryReport(), lambda: cipher, lambda: cipher, bytes, scanner(), masker)
folder = Path(sys.argv[2])
Job(resolved, neighbours, source=folder, data=folder / "data", narrator=Narrator(interval=0)).run()
print("imported", json.dumps({OURS}))
"""


def imported_in(code: str, *arguments: str) -> set[str]:
    """Our modules that a fresh interpreter holds after ``code``."""
    tests = str(Path(__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({tests!r})\n{code}", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    last = run.stdout.strip().splitlines()[-1]
    names: list[str] = json.loads(last.removeprefix("imported "))
    return set(names)


def test_what_a_training_really_imports_lies_in_the_closure(tmp_path: Path) -> None:
    """A real job, every lazy import taken: compression, mitigation, fairness, masking."""
    plan = admissions(epochs=1, batchSize=512) | {"mitigation": {"method": "reweighing"}}
    masking = {"privacy": {"masking": {"entities": ["EMAIL"]}}}
    model = resolved(
        plan, lifecycle={"compression": {"method": "dynamicInt8"}}, governance={"bias": ADMISSIONS_BIAS} | masking
    )
    (tmp_path / "model.json").write_bytes(model.dump())
    held = imported_in(RUN_A_JOB, str(tmp_path / "model.json"), str(tmp_path))
    inside = {name for name in closure([TRAINER]) if "/" not in name}
    assert held <= inside, held - inside
    for needed in ("trainer.compression", "fairness.monitoring.reference", "privacy.finder", "trainer.pipeline"):
        assert f"governed_serving.{needed}" in held
    assert len(inside - held) < len(inside) / 3  # the closure is that of the Job, not of everything


def test_what_the_explainer_imports_lies_in_the_closure() -> None:
    held = imported_in(
        f"import json\nimport governed_serving.explainer.__main__\nprint('imported', json.dumps({OURS}))"
    )
    assert held <= closure([EXPLAINER]).keys()
    assert "governed_serving.explainer.service.overview" in closure([EXPLAINER])


def test_no_module_of_the_closures_imports_by_computed_name() -> None:
    """What the sources don't say can't be followed."""
    for entry in ENTRIES.values():
        for name, path in closure([entry]).items():
            if "/" not in name and name != code_closure.__name__:
                text = path.read_text()
                assert "import_module(" not in text, name
                assert "__import__(" not in text, name
