"""The pod's environment: what is missing or wrong is told in one sentence that names the variable, by every process
alike."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from governed_api import runtime
from governed_api.model import GovernedModel
from governed_api.quantities import whole_bytes
from governed_api.resolved import ResolvedModel
from governed_serving.archive.serve import ArchiveSettings
from governed_serving.auditor.service.settings import AuditorSettings
from governed_serving.environment import InvalidSettings, PodEnvironment
from governed_serving.explainer.service.settings import ExplainerSettings
from governed_serving.records import timestamp
from governed_serving.server.settings import ServerSettings

ROLES: dict[str, Callable[[Mapping[str, str]], Any]] = {
    "archive": ArchiveSettings.from_environment,
    "auditor": AuditorSettings.from_environment,
    "explainer": ExplainerSettings.from_environment,
    "server": ServerSettings.from_environment,
}


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """What a pod of any role is given."""
    spec = {"predictor": {"model": {"storageUri": "file:m.onnx", "digest": "sha256:" + "0" * 64}}}
    resource = {"apiVersion": "governedmodels.io/v1alpha1", "kind": "GovernedModel", "metadata": {"name": "credit"}}
    (tmp_path / "spec").write_bytes(ResolvedModel.of(GovernedModel.model_validate(resource | {"spec": spec})).dump())
    (tmp_path / "kek").write_bytes(bytes(32))
    (tmp_path / "root").write_bytes(bytes(32))
    (tmp_path / "token").write_text(" a-token\n")
    return {
        runtime.SPEC: str(tmp_path / "spec"),
        runtime.KEK_FILE: str(tmp_path / "kek"),
        runtime.ARCHIVE_DIR: str(tmp_path / "archive"),
        runtime.ARCHIVE_ROOT_FILE: str(tmp_path / "root"),
        runtime.ARCHIVE_URL: "http://archive:8090/",
        runtime.ARCHIVE_TOKEN_FILE: str(tmp_path / "token"),
        runtime.HTTP_PORT: "8080",
    }


@pytest.mark.parametrize(
    ("said", "seconds"), [("30d", 30 * 86_400), ("36525d", 36_525 * 86_400), ("99999999999d", 36_525 * 86_400)]
)
def test_a_contest_has_a_date_until_which_it_is_decided(variables: dict[str, str], said: str, seconds: int) -> None:
    """Its deadline was beyond all dates, and contesting failed."""
    spec = {
        "predictor": {"model": {"storageUri": "file:m.onnx", "digest": "sha256:" + "0" * 64}},
        "governance": {"audit": {"contestDeadline": said}},
    }
    resource = {"apiVersion": "governedmodels.io/v1alpha1", "kind": "GovernedModel", "metadata": {"name": "credit"}}
    model = ResolvedModel.of(GovernedModel.model_validate(resource | {"spec": spec}))
    Path(variables[runtime.SPEC]).write_bytes(model.dump())
    assert AuditorSettings.from_environment(variables).contest_seconds == seconds
    timestamp(time.time() + seconds)


@pytest.mark.parametrize("role", ROLES)
def test_a_whole_environment_is_read(variables: dict[str, str], role: str) -> None:
    found = ROLES[role](variables)
    assert (getattr(found, "port", None) or found.http_port) == 8080
    if role != "archive":
        assert (found.archive_url, found.archive_token()) == ("http://archive:8090", "a-token")
        file = Path(variables[runtime.ARCHIVE_TOKEN_FILE])
        file.write_text("another\n")
        assert found.archive_token() == "another", "a Secret that is replaced"
        file.unlink()
        assert found.archive_token() == "another", "while it is being replaced"


@pytest.mark.parametrize(
    ("role", "name"),
    [
        *[("archive", name) for name in (runtime.KEK_FILE, runtime.ARCHIVE_DIR, runtime.ARCHIVE_ROOT_FILE)],
        *[(role, runtime.SPEC) for role in ("auditor", "explainer", "server")],
        *[(role, runtime.KEK_FILE) for role in ("auditor", "explainer")],
        *[(role, runtime.ARCHIVE_TOKEN_FILE) for role in ("auditor", "explainer", "server")],
    ],
)
@pytest.mark.parametrize("how", ["missing", "empty"])
def test_what_isnt_set_is_named(variables: dict[str, str], role: str, name: str, how: str) -> None:
    variables |= {name: ""}
    if how == "missing":
        del variables[name]
    with pytest.raises(InvalidSettings, match=rf"^{name}: expected [^\n]*, found nothing; set it$"):
        ROLES[role](variables)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("port", ["http", "-1", "8080.0", "65536", " ", "٨٠٨٠", "²", "0x1f90"])
def test_a_port_that_is_none_is_named(variables: dict[str, str], role: str, port: str) -> None:
    with pytest.raises(
        InvalidSettings, match=rf"^{runtime.HTTP_PORT}: expected a (whole number|port)[^\n]*; correct or unset it$"
    ):
        ROLES[role](variables | {runtime.HTTP_PORT: port})


@pytest.mark.parametrize("role", ["auditor", "explainer", "server"])
@pytest.mark.parametrize("url", ["archive:8090", "ftp://archive", "http://", "http://archive:http", "http://[::1"])
def test_an_address_that_is_none_is_named(variables: dict[str, str], role: str, url: str) -> None:
    with pytest.raises(InvalidSettings, match=rf"^{runtime.ARCHIVE_URL}: expected an address such as http"):
        ROLES[role](variables | {runtime.ARCHIVE_URL: url})


@pytest.mark.parametrize(
    ("content", "found"),
    [(None, "No such file or directory"), (b"", "0 bytes"), (b" \n", "0 bytes"), (b"\xff\xfe", "2 bytes")],
)
def test_a_token_that_is_none_is_named(
    variables: dict[str, str], tmp_path: Path, content: bytes | None, found: str
) -> None:
    (tmp_path / "token").unlink() if content is None else (tmp_path / "token").write_bytes(content)
    with pytest.raises(InvalidSettings, match=rf"^{runtime.ARCHIVE_TOKEN_FILE}: .*{found}"):
        PodEnvironment(variables).archive()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "No such file or directory"),
        (b"{", "Invalid JSON"),
        (
            b'{"name": "m", "namespace": "n", "spec": {"predictor": {"port": 1}}}',
            r"spec\.predictor\.port: Extra inputs",
        ),
    ],
)
def test_a_spec_that_is_none_is_named(
    variables: dict[str, str], tmp_path: Path, content: bytes | None, found: str
) -> None:
    (tmp_path / "spec").unlink() if content is None else (tmp_path / "spec").write_bytes(content)
    with pytest.raises(InvalidSettings, match=rf"^{runtime.SPEC}: .*{found}"):
        PodEnvironment(variables).model()


@pytest.mark.parametrize(
    ("text", "size"), [("64Mi", 64 * 2**20), ("1Gi", 2**30), ("1500m", None), ("5", 5), ("1.5Ki", 1536), ("2k", 2000)]
)
def test_sizes_are_whole_bytes(text: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(ValueError, match="expected a whole number of bytes"):
            whole_bytes(text)
    else:
        assert whole_bytes(text) == size
