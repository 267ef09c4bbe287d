"""Reads camera files together with the facts declared for them, and develops raws as LibRaw does.

A camera file states its own facts, and a declared level or pattern overrides them. `camera_facts` decides which
declarations apply to a camera file, since the same command or folder can have headerless files too.
"""

import tempfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from adaptiveisp.errors import OutputError, RawFileError
from adaptiveisp.raw.arrays import percentile_white
from adaptiveisp.raw.corrections import corrected
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.raw.extensions import CAMERA_EXTENSIONS
from adaptiveisp.raw.headerless import BayerHeader, SetHeader
from adaptiveisp.raw.level_checks import level_remarks
from adaptiveisp.raw.libraw import libraw_render, read_libraw
from adaptiveisp.raw.sidecars import sidecar_facts
from adaptiveisp.types import RawImage, Remark

OF_HEADERLESS = "facts of files without a header"
FOLDER_SIDECAR = "raw.yaml beside camera files"
LEAST_CODES, MOST_CODES = 255, 65535
"""White levels of floats that are sensor codes, as means of binned pixels are, and not shares of 1."""
OTHERS_SIDECAR = "sidecar that cannot be used for a camera file"


def read_camera(path: Path, header: BayerHeader | None) -> RawImage:
    """Reads a camera file or DNG; declared pattern and levels replace the file's own.

    Args:
        path: the file.
        header: flags or facts of a data set; `camera_facts` decides which of them are used.

    Raises:
        RawFileError: LibRaw cannot read the file or would misread it, it is damaged, or facts cannot be applied.
        AdaptiveISPError: rawpy is not installed.
    """
    facts, remarks = camera_facts(path, header)
    if facts.matrix is not None:
        raise RawFileError(f"{path}: raw-matrix is for raws without a header; leave it out for a camera file")
    numeric = replace(facts, white=None) if isinstance(facts.white, str) else facts
    raw = read_libraw(path, numeric)
    if isinstance(facts.white, str):
        own = raw.white_level
        raw = replace(raw, white_level=percentile_white(raw.data, BayerHeader(black=raw.black_level)))
        text = f"{path}: raw-white {facts.white}, {raw.white_level:g}, is used in place of the file's own {own:g}"
        remarks.append(Remark("raw-white in place of a camera file's own", text))
    if facts.black is not None or facts.white is not None:
        is_declared = isinstance(facts.white, int | float)
        remarks += level_remarks(raw.data, raw.pattern, raw.black_level, raw.white_level, path, is_declared)
    data = corrected(raw.data, raw.pattern, raw.black_level, raw.white_level, facts, path)
    if not remarks and data is raw.data:
        return raw
    return replace(raw, data=data, remarks=(*raw.remarks, *remarks))


def is_libraw_file(path: Path) -> bool:
    """Whether `path` has the extension of a camera file or DNG, which LibRaw reads.

    >>> is_libraw_file(Path("x.NEF")), is_libraw_file(Path("x.png"))
    (True, False)
    """
    return Path(path).suffix.lower() in CAMERA_EXTENSIONS


def camera_render(raw: RawImage) -> UInt8[np.ndarray, "height width 3"]:
    """Develops a raw as LibRaw does by default: camera white balance, sRGB, automatic brightness, upright.

    Args:
        raw: a raw that was read from a camera file or DNG, or a mosaic, which is written to a temporary DNG.

    Returns:
        sRGB code values, 0 to 255.

    Raises:
        RawFileError: LibRaw cannot develop the raw, since it is RGB, holds no 8- or 16-bit integers, is too small or
            damaged; or the disk is too full for the temporary DNG.
    """
    # Floats are binned pixels, or pixels after lens shading, which LibRaw would not see in the file.
    if raw.path is not None and is_libraw_file(raw.path) and raw.data.dtype.kind != "f":
        rendered = libraw_render(raw.path, raw)
        if rendered is not None:  # otherwise other levels were declared, which LibRaw takes only from a DNG
            return rendered
    name = raw.path or "raw image"
    if raw.data.dtype.kind == "f" and raw.pattern is not None and LEAST_CODES <= raw.white_level <= MOST_CODES:
        raw = replace(raw, data=raw.data.round().clip(0, MOST_CODES).astype(np.uint16))  # a DNG holds whole numbers
    if raw.pattern is None:
        raise RawFileError(f"{name}: LibRaw develops mosaics only, and this is RGB; use another policy than camera")
    try:
        with tempfile.TemporaryDirectory() as folder:
            mosaic = Path(folder) / "mosaic.dng"
            try:
                write_dng(raw, mosaic)
                rendered = libraw_render(mosaic)
                assert rendered is not None
                return rendered
            except (OutputError, RawFileError) as error:
                if isinstance(error.__cause__, OSError):
                    raise error.__cause__ from None
                # These messages name the temporary file, which the caller does not know.
                reason = str(error).removeprefix(f"{mosaic}: ")
                raise RawFileError(f"{name}: {reason}") from None
    except OSError as error:
        raise RawFileError(
            f"{name}: no temporary DNG could be written ({error.strerror or error}); free space or set TMPDIR"
        ) from None


def camera_facts(path: Path, header: BayerHeader | None) -> tuple[BayerHeader, list[Remark]]:
    """The declared facts that apply to a camera file, and remarks on those that do not.

    Flags (a plain `header`) override the file's own sidecar, which overrides a data set's YAML (`SetHeader`). A source
    with a size or a number of bits describes files without a header, which may lie in the same folder, and is not used.
    `raw.yaml`, which describes all files of its folder, and the defaults of a layout are not used either.

    Args:
        path: the camera file.
        header: flags, facts of a data set, or None.

    Raises:
        RawFileError: the file's own sidecar, `FILE.EXTENSION.yaml`, cannot be read or holds an impossible value.
    """
    remarks: list[Remark] = []
    own = _own_facts(path, remarks)
    given = header if header is not None else BayerHeader()
    stated = BayerHeader(**{field.name: getattr(given, field.name) for field in fields(BayerHeader)})
    sources = [("flags or header=", stated), own]
    if isinstance(given, SetHeader):
        sources = [own, ("facts of the data set", stated)]
    facts = BayerHeader()
    for name, source in sources:
        if (source.width, source.height, source.bits) == (None, None, None):
            facts = facts.filled_from(source)
            continue
        found = f"{name} with raw-size or raw-bits describe files without a header and are not used for this one"
        remedy = "to replace its own levels or pattern, give those alone"
        remarks.append(Remark(OF_HEADERLESS, f"{path}: {found}; {remedy}"))
    if facts.frame:
        text = (
            f"{path}: --raw-frame {facts.frame} is not used, since of camera files the main raw is read; leave it out"
        )
        remarks.append(Remark("frame of a camera file", text))
    _note_folder_sidecar(path, remarks)
    return facts, remarks


def _own_facts(path: Path, remarks: list[Remark]) -> tuple[str, BayerHeader]:
    """The facts of the file's own sidecar, with the name of their source."""
    explicit = path.with_name(path.name + ".yaml")
    facts = sidecar_facts(explicit)
    if facts != BayerHeader():
        return f"facts of {explicit.name}", facts
    shared = path.with_suffix(".yaml")
    if shared.name == "raw.yaml":
        return "", facts
    try:
        return f"facts of {shared.name}", sidecar_facts(shared)
    except RawFileError as error:
        # The sidecar may belong to x.raw as well as to x.dng, or to other software.
        remarks.append(Remark(OTHERS_SIDECAR, f"{path}: its sidecar is not used: {error}"))
    return "", facts


def _note_folder_sidecar(path: Path, remarks: list[Remark]) -> None:
    """Adds a remark if the folder has a sidecar, which is not used; an unreadable one is not reported."""
    try:
        facts = sidecar_facts(path.with_name("raw.yaml"))
    except RawFileError:
        return
    if facts != BayerHeader():
        found = "raw.yaml in its folder is for files without a header and not used for camera files"
        text = f"{path}: {found}; to replace a level or the pattern of this one write {path.name}.yaml"
        remarks.append(Remark(FOLDER_SIDECAR, text))
