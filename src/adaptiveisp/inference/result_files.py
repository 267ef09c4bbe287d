"""The files of `run` in its output folder: the set of files of each input is written as a whole or not at all."""

import io
import os
import re
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from PIL import Image as PilImage

from adaptiveisp.utils.files import atomic_path, json_text
from adaptiveisp.utils.output_folder import check_inside, remove_inside
from adaptiveisp.utils.png import encode_png

SUMMARY_FILE, SKIPPED_FILE, OVERVIEW_FILE, PARAMS_FILE = "summary.json", "skipped.json", "overview.png", "params.csv"
ROWS_FILE, PARQUET_FILE, SETTINGS_FILE = "results.jsonl", "results.parquet", "settings.json"
COMPARE_FILE, EXPLAIN_FILE = "compare.html", "explain.html"
BATCH_FILES = (
    *(SUMMARY_FILE, SKIPPED_FILE, OVERVIEW_FILE, PARAMS_FILE, ROWS_FILE, PARQUET_FILE, SETTINGS_FILE),
    *(COMPARE_FILE, EXPLAIN_FILE),
)
"""Files about all inputs together."""
SET_SUFFIXES = (
    *(".png", ".boxes.png", ".boxes.json", ".full.png", ".pipeline.json", ".jpg", ".boxes.jpg", ".full.jpg"),
    *(".steps.png", ".steps.jpg", ".explain.json"),
)
"""Endings after the stem of an input; pictures of steps have further endings, see `STEP_NAME`."""
STEP_NAME = re.compile(r"(.+)\.step[0-9]{2}-[a-z][a-z0-9_]*\.(?:png|jpg)")
"""`STEM.step03-denoise.png`, as `--save-steps` writes it."""

BLOCK_NAME = re.compile(r"part-[0-9]{6,}\.(?:jsonl|parquet|tar)")
"""`part-000007.jsonl`, a file of a block of results, see `scale.blocks`."""

PictureKind: TypeAlias = Literal["png", "jpeg"]
JPEG_QUALITY = 95
"""Quality of JPEG files, which keep the full resolution of colours."""


@runtime_checkable
class FileSet(Protocol):
    """Takes the files of one input."""

    def picture(self, name: str, picture: Any) -> None:
        """Takes an 8-bit array or a PIL picture."""
        ...

    def json(self, name: str, value: Any) -> None:
        """Takes a value for JSON."""
        ...


class EncodedFiles:
    """The files of one input, encoded in memory, so that threads may encode while another one writes.

    A picture that equals the one before it, as one without boxes does, is not encoded again.

    Args:
        kind: PNG, or JPEG, which changes the ending of names to .jpg.

    Attributes:
        contents: name and content of each file, in the order in which they were placed.
    """

    def __init__(self, kind: PictureKind = "png"):
        self.kind = kind
        self.contents: list[tuple[str, bytes]] = []
        self._last: tuple[Any, bytes] = (None, b"")

    @property
    def names(self) -> list[str]:
        """Names of the files."""
        return [name for name, _ in self.contents]

    def picture(self, name: str, picture: Any) -> None:
        """Encodes an 8-bit array or a PIL picture; `name` ends with .png."""
        last, content = self._last
        if last is None or not np.array_equal(last, picture):
            content = encoded(picture, self.kind)
            self._last = (picture, content)
        self.contents.append((name if self.kind == "png" else f"{name.removesuffix('.png')}.jpg", content))

    def json(self, name: str, value: Any) -> None:
        """Encodes a value as JSON."""
        self.contents.append((name, json_text(value).encode("utf-8", "backslashreplace")))


class ResultFiles:
    """The files of one input, written under temporary names and renamed when all are complete; a context manager.

    The file that was placed first is renamed last. If it exists, the others exist too, even if the process was killed.

    Args:
        folder: the output folder.

    Attributes:
        names: the files placed so far, relative to the folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.names: list[str] = []
        self._files = ExitStack()

    def place(self, name: str) -> Path:
        """A temporary path to write to, renamed to `name` below the folder at the end.

        Raises:
            OutputError: its folder cannot be written to.
            OutputNameError: the name is too long, or a link leads out of the folder.
        """
        path = self.folder / name
        check_inside(self.folder, path)
        temporary = self._files.enter_context(atomic_path(path))
        self.names.append(name)
        return temporary

    def content(self, name: str, content: bytes) -> None:
        """Places a file with this content."""
        save_content(self.place(name), content)

    def picture(self, name: str, picture: Any) -> None:
        """Places an 8-bit array or a PIL picture as PNG."""
        self.content(name, encoded(picture))

    def json(self, name: str, value: Any) -> None:
        """Places a value as JSON."""
        self.content(name, json_text(value).encode("utf-8", "backslashreplace"))

    def __enter__(self) -> "ResultFiles":
        return self

    def __exit__(self, *failure: Any) -> None:
        self._files.__exit__(*failure)


def save_content(path: Path, content: bytes) -> None:
    """Writes a file that was placed."""
    path.write_bytes(content)


def encoded(picture: Any, kind: PictureKind = "png") -> bytes:
    """An 8-bit array or a PIL picture as the content of a PNG or a JPEG file."""
    if kind == "jpeg":
        image = picture if isinstance(picture, PilImage.Image) else PilImage.fromarray(picture)
        target = io.BytesIO()
        image.save(target, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
        return target.getvalue()
    return encode_png(np.asarray(picture))


class FormerFiles:
    """Files that an earlier run, complete or killed, may have written for the same inputs.

    They are found by the names that this run would give them. A list in a file is not used, because files in the folder
    may come from anybody.

    Args:
        folder: the output folder, which has the marker of this package.
        stems: stem of the outputs of each input, relative to the folder.

    Attributes:
        n_others: number of files with names of outputs of other inputs; they are never removed.
    """

    def __init__(self, folder: Path, stems: Iterable[Path]):
        self.folder = folder
        self._names: dict[str, set[str]] = {}
        self.n_others = 0
        wanted = {stem.as_posix() for stem in stems}
        for parent in sorted({Path(stem).parent for stem in wanted}):
            for name in _names_in(folder / parent):
                stem, known = _stem_of(name)
                key = (parent / stem).as_posix()
                if not known or name in BATCH_FILES:
                    continue
                if key not in wanted:
                    self.n_others += 1
                else:
                    self._names.setdefault(key, set()).add((parent / name).as_posix())

    def remove(self, stem: str, kept: Collection[str] = ()) -> None:
        """Removes the files that an earlier run wrote for an input, except the names that were written again.

        Raises:
            OutputError: one cannot be removed, or a link leads out of the folder.
        """
        for name in sorted(self._names.pop(stem, set()) - set(kept)):
            remove_inside(self.folder, self.folder / name)

    def remove_batch_files(self, kept: Collection[str] = ()) -> None:
        """Removes the files about all inputs together, which are outdated from the first result on, except `kept`.

        Raises:
            OutputError: one cannot be removed.
        """
        blocks = (name for name in _names_in(self.folder) if BLOCK_NAME.fullmatch(name))
        for name in (one for one in (*BATCH_FILES, *blocks) if one not in kept):
            remove_inside(self.folder, self.folder / name)


def _names_in(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)]
    except OSError:  # usually the folder does not exist yet
        return []


def _stem_of(name: str) -> tuple[str, bool]:
    """The stem of an input in the name of one of its outputs, and whether a run gives such names.

    >>> _stem_of("a.boxes.json"), _stem_of("a.step02-denoise.png"), _stem_of("notes.txt")
    (('a', True), ('a', True), ('', False))
    """
    if match := STEP_NAME.fullmatch(name):
        return match[1], True
    for suffix in sorted(SET_SUFFIXES, key=len, reverse=True):
        if name.endswith(suffix):
            return name.removesuffix(suffix), True
    return "", False
