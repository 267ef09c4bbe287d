"""Reads manifest.json of an export; docs/export.md of adaptiveisp describes it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptiveisp_runtime.errors import RuntimeFault
from adaptiveisp_runtime.manifest_check import first_fault

FILE = "manifest.json"
SETTINGS_FILE = "adaptiveisp.json"
"""In the folder of a policy with its graphs: the hashes of its files, the manifest's among them."""
FORMAT = "adaptiveisp-export"
VERSION = 1
REMEDY = "give a folder that `adaptiveisp export` wrote"
NEEDED = ("policy", "graphs", "frame", "geometry", "pipeline", "detector", "self_test")


BLOCK = 1 << 20
"""Bytes of a file that are read at once."""


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class Graph:
    """One graph of an export.

    Attributes:
        name: "full", "policy" or "isp".
        path: its file.
        sha256: of the file.
        inputs, outputs: tensors in order, each with name, dtype and shape, as in the manifest.
    """

    name: str
    path: Path
    sha256: str
    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...]

    def check(self) -> None:
        """Compares the file with its hash, in blocks, so that it takes no memory.

        Raises:
            RuntimeFault: it is missing, or is not the file that the manifest describes.
        """
        try:
            found = file_hash(self.path)
        except OSError as error:
            raise RuntimeFault(f"{self.path}: cannot be read ({error.strerror}); export the folder again") from error
        if found != self.sha256:
            raise RuntimeFault(f"{self.path}: was changed since the export, by its hash; export the folder again")

    def content(self) -> bytes:
        """The bytes of the file.

        Raises:
            RuntimeFault: as for `check`.
        """
        self.check()
        return self.path.read_bytes()


@dataclass(frozen=True)
class Manifest:
    """What a folder holds and how it is used.

    Attributes:
        folder: the folder.
        content: all of manifest.json.
        graphs: by name.
    """

    folder: Path
    content: Mapping[str, Any]
    graphs: Mapping[str, Graph]

    @property
    def frame(self) -> Mapping[str, Any]:
        """How the bytes of a camera become the input."""
        part: Mapping[str, Any] = self.content["frame"]
        return part

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the detections' labels."""
        return tuple(self.content["detector"]["class_names"])

    def graph(self, name: str) -> Graph:
        """The graph of that name.

        Raises:
            RuntimeFault: the folder has none.
        """
        if name not in self.graphs:
            raise RuntimeFault(f"{self.folder}: has no graph {name!r}; it has {', '.join(self.graphs)}")
        return self.graphs[name]

    def refuse_parts(self) -> None:
        """Refuses a folder that has parts alone.

        Raises:
            RuntimeFault: there is no graph `full`.
        """
        if "full" not in self.graphs:
            raise RuntimeFault(
                f"{self.folder}: has only the parts {', '.join(self.graphs)}, which need a program of one's own "
                "(docs/runtime.md); export without --without-if for one graph"
            )

    def tensor(self, entry: Mapping[str, Any]) -> NDArray[Any]:
        """The numbers of a tensor of the self-test.

        Raises:
            RuntimeFault: the file is missing or has another length.
        """
        path = inside(self.folder, str(entry["file"]))
        kind = np.dtype(str(entry["dtype"])).newbyteorder("<")
        try:
            values = np.frombuffer(path.read_bytes(), kind).reshape([int(side) for side in entry["shape"]])
        except OSError as error:
            raise RuntimeFault(f"{path}: cannot be read ({error.strerror}); export the folder again") from error
        except ValueError as error:
            raise RuntimeFault(f"{path}: does not fit its manifest ({error}); export the folder again") from error
        return values.astype(kind.newbyteorder("="))


def load_manifest(folder: str | Path) -> Manifest:
    """Reads the manifest of a folder.

    Raises:
        RuntimeFault: there is none, it is not valid, or is of a version that this package does not know.
    """
    place = Path(folder)
    path = place / FILE
    try:
        written = path.read_bytes()
        content = json.loads(written.decode("utf-8"))
    except OSError as error:
        raise RuntimeFault(f"{path}: cannot be read ({error.strerror}); {REMEDY}") from error
    except (ValueError, RecursionError) as error:
        raise RuntimeFault(f"{path}: is not JSON ({error}); {REMEDY}") from error
    if _other_hash(place, written):
        raise RuntimeFault(
            f"{path}: was changed since {SETTINGS_FILE} was written, by its hash; export the folder again"
        )
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RuntimeFault(f"{path}: is not the manifest of an export; {REMEDY}")
    if content.get("format_version") != VERSION:
        known = f"this package reads version {VERSION}"
        raise RuntimeFault(f"{path}: has the version {content.get('format_version')}, {known}; update one of them")
    missing = [key for key in NEEDED if not isinstance(content.get(key), dict)]
    if missing:
        raise RuntimeFault(f"{path}: has no {missing[0]!r}; export the folder again")
    try:
        graphs = {name: _graph(place, name, entry) for name, entry in content["graphs"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise RuntimeFault(f"{path}: its graphs are not valid ({error}); export the folder again") from error
    if fault := first_fault(content):
        raise RuntimeFault(f"{path}: {fault}; export the folder again")
    return Manifest(place, content, graphs)


def _other_hash(folder: Path, manifest: bytes) -> bool:
    """Whether the folder is that of a policy whose settings name another hash of the manifest."""
    try:
        files = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8")).get("files", {})
        wanted = files.get(FILE)
    except (OSError, ValueError, RecursionError, AttributeError):
        return False
    return isinstance(wanted, str) and hashlib.sha256(manifest).hexdigest() != wanted


def _graph(folder: Path, name: str, entry: Mapping[str, Any]) -> Graph:
    path = inside(folder, str(entry["file"]))
    return Graph(name, path, str(entry["sha256"]), tuple(entry["inputs"]), tuple(entry["outputs"]))


def inside(folder: Path, name: str) -> Path:
    """The file of that name in a folder.

    Raises:
        RuntimeFault: the name leads out of the folder.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise RuntimeFault(f"{folder / FILE}: names {name}, which is outside the folder; do not use it")
    return path
