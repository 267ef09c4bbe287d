"""The files of `run` in its output folder: the set of files of each input is written as a whole or not at all."""

import os
import re
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image as PilImage

from adaptiveisp.utils.files import atomic_path, json_text
from adaptiveisp.utils.output_folder import check_inside, remove_inside

SUMMARY_FILE, SKIPPED_FILE, OVERVIEW_FILE, PARAMS_FILE = "summary.json", "skipped.json", "overview.png", "params.csv"
COMPARE_FILE, EXPLAIN_FILE = "compare.html", "explain.html"
BATCH_FILES = (SUMMARY_FILE, SKIPPED_FILE, OVERVIEW_FILE, PARAMS_FILE, COMPARE_FILE, EXPLAIN_FILE)
"""Files about all inputs together."""
SET_SUFFIXES = (".png", ".boxes.png", ".boxes.json", ".full.png", ".pipeline.json", ".steps.png", ".explain.json")
"""Endings after the stem of an input; pictures of steps have further endings, see `STEP_NAME`."""
STEP_NAME = re.compile(r"(.+)\.step[0-9]{2}-[a-z][a-z0-9_]*\.png")
"""`STEM.step03-denoise.png`, as `--save-steps` writes it."""


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

    def picture(self, name: str, picture: Any) -> None:
        """Places an 8-bit array or a PIL picture as PNG."""
        save_png(self.place(name), picture)

    def json(self, name: str, value: Any) -> None:
        """Places a value as JSON."""
        self.place(name).write_text(json_text(value), encoding="utf-8", errors="backslashreplace")

    def __enter__(self) -> "ResultFiles":
        return self

    def __exit__(self, *failure: Any) -> None:
        self._files.__exit__(*failure)


def save_png(path: Path, picture: Any) -> None:
    """Writes an 8-bit array or a PIL picture as PNG."""
    image = picture if isinstance(picture, PilImage.Image) else PilImage.fromarray(picture)
    image.save(path, format="PNG")


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

    def remove_batch_files(self) -> None:
        """Removes the files about all inputs together, which are outdated from the first result on.

        Raises:
            OutputError: one cannot be removed.
        """
        for name in BATCH_FILES:
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
