"""Volumes of a pod → directories; Secrets and ConfigMaps → files."""

import base64
from collections.abc import Mapping
from pathlib import Path

from governed_api.regular_files import KEY_BYTES, read_regular
from governed_api.storage import file_of
from governed_operator.desired.key_material import derives, draw, wanted
from governed_operator.desired.manifest import Manifest
from governed_operator.desired.pod import WEIGHTS
from governed_operator.local.errors import LocalError
from governed_operator.local.workdir import Workdir


class Secrets:
    """Secrets of a namespace as files WORKDIR/secrets/<name>/<key>, 0600; generated ones are drawn once. Those that
    bring their data (rows of training data) stay in memory."""

    def __init__(
        self, workdir: Workdir, root: tuple[str, str], given: Mapping[str, Mapping[str, bytes]] | None = None
    ) -> None:
        self._folder, self._root = workdir.secrets, root
        self._brought = {name: dict(data) for name, data in (given or {}).items()}

    def ensure(self, secret: Manifest) -> None:
        """Draw a generated Secret's data unless it is there. A half-written one is an error, never replaced: a key may
        be lost."""
        name = secret["metadata"]["name"]
        if "data" in secret:
            self._brought[name] = {key: base64.b64decode(value) for key, value in secret["data"].items()}
            return
        folder = self._folder / name
        if derives(secret):
            self._derive(folder, secret)
            return
        if folder.is_dir():
            missing = [key for key in wanted(secret) if not (folder / key).is_file()]
            if missing:
                raise LocalError(f"{folder / missing[0]} is missing: restore the key, or start in a new --workdir")
            return
        staging = self._folder / f".{name}"
        staging.mkdir(mode=0o700, exist_ok=True)
        for key, value in draw(secret, self._root_key()).items():
            write_private(staging / key, value)
        staging.rename(folder)

    def _derive(self, folder: Path, secret: Manifest) -> None:
        """Tokens follow from the archive's root, so they are written anew at every start."""
        tokens = draw(secret, self._root_key())
        folder.mkdir(mode=0o700, exist_ok=True)
        for key, value in tokens.items():
            write_private(folder / key, value)

    def value(self, name: str, key: str) -> bytes:
        """Raises LocalError when the Secret, or the key in it, isn't there."""
        if key in self._brought.get(name, {}):
            return self._brought[name][key]
        path = self._folder / name / key
        if not path.is_file():
            raise LocalError(
                f"Secret {name} has no key {key}: expected a file {path} (mode 0600; of a key-encryption key 32 random "
                "bytes)"
            )
        return read_regular(path, KEY_BYTES, follow=True)

    def place(self, name: str) -> Path:
        """Folder that a person puts a Secret's keys into."""
        return self._folder / name

    def keys(self, name: str) -> list[str]:
        if name in self._brought:
            return sorted(self._brought[name])
        folder = self._folder / name
        return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []

    def _root_key(self) -> bytes | None:
        path = self._folder.joinpath(*self._root)
        return read_regular(path, KEY_BYTES, follow=True) if path.is_file() else None


def write_private(path: Path, content: bytes) -> None:
    """A file that only its owner reads, from the first byte on."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)


class Volumes:
    """Directories of one pod's volumes, by volume name."""

    def __init__(
        self,
        pod: str,
        workdir: Workdir,
        secrets: Secrets,
        config_maps: Mapping[str, Manifest],
        source: Path,
        *,
        weights: str | None = None,
    ) -> None:
        """``source``: the manifest's folder; ``weights``: URI of what a foreign runtime reads."""
        self._pod = pod
        self._workdir = workdir
        self._secrets = secrets
        self._config_maps = config_maps
        self._source = source
        self._weights = weights

    def directory(self, volume: Manifest) -> Path:
        """The directory that stands for ``volume``, made and filled. Raises LocalError for kinds that have no local
        meaning."""
        name = volume["name"]
        if name == WEIGHTS and self._weights:
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            try:
                return file_of(self._weights, self._workdir.volumes / claim if claim else self._source)
            except ValueError as error:
                raise LocalError(str(error)) from None
        if name == "source" and "emptyDir" in volume:
            return self._source
        if "persistentVolumeClaim" in volume:
            return self._made(self._workdir.volumes / volume["persistentVolumeClaim"]["claimName"])
        if "claimTemplate" in volume:
            return self._made(self._workdir.volumes / f"{name}-{self._pod}")
        if "emptyDir" in volume:
            memory = volume["emptyDir"].get("medium") == "Memory"
            return self._made((self._workdir.memory if memory else self._workdir.volumes) / self._pod / name)
        folder = self._made(self._workdir.memory / self._pod / name)
        for path, content in self._files(volume).items():
            write_private(folder / path, content)
        return folder

    def _files(self, volume: Manifest) -> dict[str, bytes]:
        if "configMap" in volume:
            source = volume["configMap"]
            missing = source.get("optional") and source["name"] not in self._config_maps
            return {} if missing else self._config_map(source["name"])
        if "secret" in volume:
            return self._secret({**volume["secret"], "name": volume["secret"]["secretName"]})
        if "projected" in volume:
            if any("serviceAccountToken" in source for source in volume["projected"]["sources"]):
                return {}  # no API server to speak to
            out: dict[str, bytes] = {}
            for source in volume["projected"]["sources"]:
                out |= (
                    self._secret(source["secret"])
                    if "secret" in source
                    else self._config_map(source["configMap"]["name"])
                )
            return out
        kinds = ", ".join(k for k in volume if k != "name")
        raise LocalError(f"volume {volume['name']} of kind {kinds} has no meaning on one machine")

    def _secret(self, source: Manifest) -> dict[str, bytes]:
        if not source.get("items") and not self._secrets.keys(source["name"]):
            place = self._secrets.place(source["name"])
            raise LocalError(f"Secret {source['name']} isn't there: make the folder {place} with a file for each key")
        items = source.get("items") or [{"key": k, "path": k} for k in self._secrets.keys(source["name"])]
        return {item["path"]: self._secrets.value(source["name"], item["key"]) for item in items}

    def _config_map(self, name: str) -> dict[str, bytes]:
        if name not in self._config_maps:
            raise LocalError(f"ConfigMap {name} is not among the rendered objects")
        config_map = self._config_maps[name]
        binary = {k: base64.b64decode(v) for k, v in config_map.get("binaryData", {}).items()}
        return {k: v.encode() for k, v in config_map.get("data", {}).items()} | binary

    @staticmethod
    def _made(path: Path) -> Path:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path
