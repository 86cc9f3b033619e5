"""Facts of the contract that several rooms rely on are written once."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import governed
import governed_api
import governed_operator
import governed_serving
from governed_api import object_names, runtime
from governed_api.governance import Encryption
from governed_api.model import GovernedModelSpec
from governed_api.names import MAX_MODEL_NAME
from governed_api.runtime import OPERATOR_PORT, PORTS, VARIABLES, in_words
from governed_api.storage import SCHEMES, claim_of, file_of
from governed_operator.desired.pod import source_volume
from governed_serving.sources import fetching

API, OPERATOR, SERVING = (Path(str(p.__file__)).parent for p in (governed_api, governed_operator, governed_serving))
PACKAGES = (API, OPERATOR, SERVING, Path(str(governed.__file__)).parent)
TESTS = Path(__file__).parents[2]


def formatted_tails(path: Path) -> set[str]:
    """Literal ends of f-strings: ``f"{name}-kek"`` has ``-kek``."""
    joined = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.JoinedStr))
    return {
        part.value
        for node in joined
        for part in node.values
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    }


def test_every_scheme_of_a_network_has_a_source_that_fetches_it() -> None:
    assert set(fetching._KINDS) == {scheme.name for scheme in SCHEMES if scheme.remote}


def test_every_scheme_of_a_volume_is_mounted_by_the_pod_that_reads_it() -> None:
    of_volumes = [scheme for scheme in SCHEMES if not scheme.remote and scheme.name != "file"]
    mounted = [scheme.name for scheme in of_volumes if "emptyDir" not in source_volume(f"{scheme.prefix}claim/a.csv")]
    assert mounted == [scheme.name for scheme in of_volumes] != []


def test_no_derived_name_is_put_together_by_hand() -> None:
    derived = {"-kek", "-keys", "-token", "-predictor", "-pods", "-compute", "-data", "-0"}
    files = [p for room in PACKAGES for p in room.rglob("*.py") if p.name != "object_names.py"]
    found = {str(p): tails for p in files if (tails := formatted_tails(p) & derived)}
    assert found == {}


def test_derived_names_are_apart_and_valid_for_the_longest_model() -> None:
    def names(model: str) -> list[str]:
        return [
            object_names.own_kek(model), object_names.tokens(model), object_names.account(model),
            object_names.operator_token(model),
            object_names.deployment(model), object_names.deployment(model, "canary"), object_names.data_claim(model),
            object_names.compute_quota(model), object_names.serving_config(model, b"{}"),
            object_names.training_config(model, "ab" * 5), object_names.training_job(model, "ab" * 32),
            object_names.priority_class("n", model, 0), object_names.service(model),
        ]  # fmt: skip

    longest = names("m" * MAX_MODEL_NAME)
    assert len(set(longest)) == len(longest)
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name) for name in longest)
    assert object_names.priority_class("a", "m", 0) != object_names.priority_class("b", "m", 0)


def test_the_key_is_the_one_that_the_manifest_names() -> None:
    spec = GovernedModelSpec.model_validate({"predictor": {"model": {"runtime": {"image": "i"}}}})
    assert object_names.key_encryption_key("m", spec) == ("m-kek", "kek")
    encryption = Encryption.model_validate({"keyRef": {"secretName": "mine", "key": "k"}})
    governance = spec.governance.model_copy(update={"encryption": encryption})
    assert object_names.key_encryption_key("m", spec.model_copy(update={"governance": governance})) == ("mine", "k")


def test_every_variable_of_the_contract_says_what_its_value_is() -> None:
    named = {v for k, v in vars(runtime).items() if isinstance(v, str) and v.startswith("GOVERNED_")}
    assert named <= set(VARIABLES)
    assert {v for k, v in vars(runtime).items() if k.startswith("PORT_")} == set(PORTS)


def numbers_and_texts(path: Path) -> Iterator[str]:
    """Numbers and texts of a module, docstrings left out."""
    tree = ast.parse(path.read_text())
    told = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and type(node.value) in (int, str) and id(node) not in told:
            yield str(node.value)


def test_a_port_is_written_in_the_contract_alone() -> None:
    known = re.compile(rf"\b({'|'.join(map(str, (*PORTS, OPERATOR_PORT)))})\b")
    files = [p for room in PACKAGES for p in room.rglob("*.py") if p != API / "runtime.py"]
    found = {str(p): texts for p in files if (texts := [t for t in numbers_and_texts(p) if known.search(t)])}
    assert found == {}
    chart = API.parents[1] / "charts/governed-models/templates"
    written = {text for p in chart.rglob("*.yaml") for text in re.findall(r"\b80[89]\d\b", p.read_text())}
    assert written == {str(OPERATOR_PORT)}


def test_a_storage_scheme_is_written_in_the_contract_alone() -> None:
    files = [p for room in PACKAGES for p in room.rglob("*.py") if p != API / "storage.py"]
    begun = [f'"{scheme.prefix}"' for scheme in SCHEMES]
    assert {str(p) for p in files if any(text in p.read_text() for text in begun)} == set()


WORDS = {(1,): "1", (2, 1): "1 to 2", (1, 3): "1 and 3", (8, 1, 2, 3, 5): "1 to 3, 5 and 8"}


@pytest.mark.parametrize("ports", WORDS)
def test_ports_in_words(ports: tuple[int, ...]) -> None:
    for order in itertools.permutations(ports):
        assert in_words(order) == WORDS[ports]


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:a/b.csv", "a/b.csv"), ("file://a.csv", "a.csv"), ("file:///etc/a.csv", "/etc/a.csv"),
        ("pvc://claim/a/b.csv", "a/b.csv"), ("pvc://claim//a.csv", "a.csv"), ("pvc://claim/x/../a.csv", "a.csv"),
    ],
)  # fmt: skip
def test_a_uri_leads_to_a_file(tmp_path: Path, uri: str, path: str) -> None:
    assert file_of(uri, tmp_path) == tmp_path / path
    assert claim_of(uri) == ("claim" if uri.startswith("pvc") else None)


@pytest.mark.parametrize(
    "uri", ["pvc://c/../a.csv", "pvc://c/../../etc/passwd", "pvc://c/link/a.csv", "s3://bucket/a.csv", ""]
)
def test_a_uri_out_of_its_claim_is_refused(tmp_path: Path, uri: str) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link").symlink_to(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"leaves the volume of claim c|expected a file of this machine or|expected one of file:PATH, pvc:",
    ):
        file_of(uri, tmp_path / "inside")


def test_no_code_draws_from_the_generator_that_everyone_shares() -> None:
    """A thread in the background would move a seeded run on; forked processes would draw alike (``jitter.JITTER``)."""

    def shared(path: Path) -> set[str]:
        attributes = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute))
        of_module = (n for n in attributes if isinstance(n.value, ast.Name) and n.value.id == "random")
        return {node.attr for node in of_module} - {"Random", "SystemRandom"}

    files = [path for room in PACKAGES for path in room.rglob("*.py")]
    assert {str(path): drawn for path in files if (drawn := shared(path))} == {}


def test_damage_in_tests_is_always_damage() -> None:
    """Sealed bytes end in the fixed byte that replaces their last once in 256 times (``support.damage.flipped``)."""

    def replaced(path: Path) -> list[int]:
        sums = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.BinOp))
        return [
            node.lineno
            for node in sums
            if isinstance(node.right, ast.Constant)
            and isinstance(node.right.value, bytes)
            and len(node.right.value) < 4  # more are never those that stood there
            and isinstance(node.left, ast.Subscript)
            and ast.unparse(node.left.slice) == f":-{len(node.right.value)}"
        ]

    files = [path for path in TESTS.rglob("*.py") if "contract" not in path.parts]
    assert {str(path): lines for path in files if (lines := replaced(path))} == {}
