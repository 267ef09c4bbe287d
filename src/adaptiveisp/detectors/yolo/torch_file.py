"""Files of `torch.save`, read as plain data and tensors without running their code.

Such a file is a zip: `data.pkl` describes the object, see `restricted_pickle`, and each `data/KEY` holds the values of
a storage.
"""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adaptiveisp.detectors.yolo.restricted_pickle import RefusedError, StoredTensor, read_pickle
from adaptiveisp.errors import WeightsError

MAX_PICKLE_BYTES = 2**24
"""Most bytes of `data.pkl`; in the largest published detectors it has a tenth of this size."""

MAX_LITTLE_BYTES = 64
"""Most bytes of `byteorder`, which holds one word."""


@dataclass
class TorchFile:
    """The content of an open file.

    Attributes:
        path: the file.
        content: the pickled object, see `read_pickle`.
        archive: the open zip.
        folder: its top folder, with a slash.
    """

    path: Path
    content: Any
    archive: zipfile.ZipFile = field(repr=False)
    folder: str

    @property
    def most_values(self) -> int:
        """Most values that the file can hold, of two bytes each. Entries can overlap, so their sizes do not count."""
        return self.path.stat().st_size // 2

    def tensor(self, stored: StoredTensor) -> Tensor:
        """A tensor of the file as a new one of float32.

        Raises:
            WeightsError: the values are missing or not finite.
        """
        name = f"{self.folder}data/{stored.key}"
        content = _read(self.archive, self.path, name, stored.numel * stored.dtype.itemsize)
        if len(content) != stored.numel * stored.dtype.itemsize:
            raise _damaged(self.path, f"a tensor has {len(content)} bytes, not {stored.numel * stored.dtype.itemsize}")
        if not math.prod(stored.shape):
            return torch.zeros(stored.shape)
        values = torch.frombuffer(bytearray(content), dtype=stored.dtype)
        result = (
            values.as_strided(stored.shape, stored.stride, stored.offset)
            .to(torch.float32)
            .clone(memory_format=torch.contiguous_format)
        )
        if not result.isfinite().all():
            raise _damaged(self.path, "some of its weights are not finite")
        return result


def is_torch_file(path: Path) -> bool:
    """Whether a file has the form of a zip of `torch.save`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _top_folder(archive) is not None
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


@contextmanager
def open_torch_file(path: Path) -> Iterator[TorchFile]:
    """The content of a file of `torch.save`; its tensors can be read until the context ends.

    Raises:
        WeightsError: the file is missing, damaged or of an older form, or its pickle is refused; none of it was run.
    """
    path = Path(path)
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise WeightsError(
            f"{path}: is no zip as torch.save writes since 1.6, or is truncated; get the file again, or save it with a "
            "newer torch"
        ) from error
    with archive:
        folder = _top_folder(archive)
        if folder is None:
            raise _damaged(path, "it has no data.pkl")
        if f"{folder}constants.pkl" in archive.namelist():
            raise WeightsError(f"{path}: is a TorchScript program, which is not read; give the .pt that training wrote")
        order = f"{folder}byteorder"
        if order in archive.namelist() and _read(archive, path, order, MAX_LITTLE_BYTES).strip() != b"little":
            raise WeightsError(f"{path}: was written on a big-endian machine; save it again on another")
        try:
            content = read_pickle(_read(archive, path, f"{folder}data.pkl", MAX_PICKLE_BYTES))
        except RefusedError as error:
            raise WeightsError(
                f"{path}: its pickle {error}, so it is refused, and none of it was run; get the file from its source"
            ) from error
        yield TorchFile(path, content, archive, folder)


def _top_folder(archive: zipfile.ZipFile) -> str | None:
    """The only top folder with a `data.pkl`, ending with a slash; None if there is none or more than one."""
    tops = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
    return tops[0] if len(tops) == 1 and tops[0].count("/") == 1 else None


def _read(archive: zipfile.ZipFile, path: Path, name: str, limit: int) -> bytes:
    """One entry of the zip, of at most `limit` bytes."""
    try:
        entry = archive.getinfo(name)
        # torch.save does not compress, and a compressed entry could expand to any size.
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > limit:
            raise _damaged(path, f"an entry is compressed, or has {entry.file_size} bytes, more than {limit}")
        return archive.read(entry)
    except KeyError:
        raise _damaged(path, "an entry is missing") from None
    # An encrypted entry raises RuntimeError; one of an unknown compression raises its subclass NotImplementedError.
    except (OSError, EOFError, zipfile.BadZipFile, RuntimeError, ValueError) as error:
        raise _damaged(path, next(iter(str(error).splitlines()), type(error).__name__)) from error


def _damaged(path: Path, detail: str) -> WeightsError:
    return WeightsError(f"{path}: is damaged ({detail}); get the file again")
