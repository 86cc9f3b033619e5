"""charts/release: release what was built, or verify a release."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from governed_api.version import __version__
from governed_release import manifest, provenance
from governed_release.errors import ReleaseError
from governed_release.images import Image, from_docker, from_layout
from governed_release.places import Place, checked_version
from governed_release.publish import Release, held_files, plan, prepare, publish
from governed_release.registry import Registry
from governed_release.roles import ROLES
from governed_release.signing import load_public, load_signer
from governed_release.source_tree import source_tree
from governed_release.verify import Findings, Verifier, verify_files

ROOT = Path(__file__).resolve().parents[2]

RELEASE = """Push the images of all roles and the chart by digest, sign them, attach SBOM and provenance, and write
values-release.yaml and a signed release.json to dist/release/VERSION. Credentials: docker login. A run that broke off
goes on when it is run again. `charts/release verify --help`: check a release."""
VERIFY = """Check a release: its files in FOLDER (no network), or everything in a registry. Exit status 1: something is
wrong, and named."""


def _release_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="charts/release", description=RELEASE)
    parser.add_argument("--registry", required=True, metavar="HOST/PATH", help="repositories PATH/ROLE of HOST")
    parser.add_argument("--version", required=True, help="as crds/governed_api/version.py and Chart.yaml have it")
    parser.add_argument("--key", required=True, type=Path, help="ECDSA P-256 private key in PEM, mode 0600")
    parser.add_argument(
        "--layouts",
        type=Path,
        metavar="FOLDER",
        help="OCI image layouts, FOLDER/ROLE each; without it docker's governed-models/ROLE:VERSION",
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default: dist/release/VERSION")
    parser.add_argument("--source", metavar="URI", help="where the commit is found; default: https origin")
    parser.add_argument("--builder", metavar="URI", default=provenance.builder(), help="SLSA's builder.id")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    _shared(parser)
    parser.add_argument("--dry-run", action="store_true", help="check everything, write nothing")
    return parser


def _shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plain-http", action="store_true", help="speak http (loopback always does)")


def _verify_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="charts/release verify", description=VERIFY)
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="with release.json and its signature")
    parser.add_argument("--key", required=True, type=Path, help="public key in PEM, from a place you trust")
    parser.add_argument("--registry", metavar="HOST/PATH", help="look there as well; may be a mirror")
    parser.add_argument("--version", help="which release; needed without FOLDER")
    _shared(parser)
    return parser


def _registry(place: Place, options: argparse.Namespace) -> Registry:
    return Registry(place.host, plain_http=options.plain_http or place.loopback)


def _images(options: argparse.Namespace, scratch: Path) -> dict[str, Image]:
    if options.layouts is None:
        return {r.name: from_docker(f"governed-models/{r.name}:{options.version}", scratch / r.name) for r in ROLES}
    return {r.name: from_layout(options.layouts / r.name, r.name) for r in ROLES if (options.layouts / r.name).is_dir()}


def release(argv: Sequence[str]) -> int:
    options = _release_parser().parse_args(argv)
    place, version = Place.parse(options.registry), checked_version(options.version)
    if version != __version__:
        raise ReleaseError(f"version: expected {__version__} (crds/governed_api/version.py), found {version}")
    signer = load_signer(options.key)
    made = Release(place, version, source_tree(options.root, options.source), signer, options.builder)
    registry = _registry(place, options)
    with tempfile.TemporaryDirectory(prefix="governed-release-") as scratch:
        prepared = prepare(made, _images(options, Path(scratch)))
        if options.dry_run:
            chart = plan(made, registry, prepared)
            for one in prepared:
                print(f"would push {place.reference(one.role.name)}@{one.image.digest}")
            print(f"would push oci://{place.reference('governed-models')} {version}@{chart.manifest.digest}")
            return 0
        folder = options.output or options.root / "dist" / "release" / version
        publish(made, registry, prepared, folder, print)
    return 0


def verify(argv: Sequence[str]) -> int:
    parser = _verify_parser()
    options = parser.parse_args(argv)
    if options.folder is None and not (options.registry and options.version):
        parser.error("expected FOLDER, or --registry and --version")
    key, findings = load_public(options.key), Findings()
    place = Place.parse(options.registry) if options.registry else None
    registry = _registry(place, options) if place else None
    if options.folder is not None:
        files = {path.name: path.read_bytes() for path in sorted(options.folder.glob("*")) if path.is_file()}
    else:
        assert place is not None
        assert registry is not None
        found = held_files(registry, place, checked_version(options.version))
        if found is None:
            raise ReleaseError(f"{place.reference(manifest.REPOSITORY)}:{options.version}: there is no such release")
        files = found
    made = verify_files(files, key, options.version, findings)
    if made is not None and place is not None and registry is not None:
        Verifier(registry, place, made, key).everything(findings)
    for line in findings.wrong:
        print(f"WRONG  {line}")
    where = "in the registry too" if place else "the registry wasn't asked (--registry HOST/PATH)"
    print(f"{len(findings.checked)} checks hold, {len(findings.wrong)} don't; {where}")
    return 1 if findings.wrong else 0


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return verify(words[1:]) if words[:1] == ["verify"] else release(words)
    except ReleaseError as error:
        print(f"charts/release: {error}", file=sys.stderr)
        return 1
