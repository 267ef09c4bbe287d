"""The colours of the cameras that synthetic raws come from: named sets of XYZ → camera matrices, and files with others.

With the set of Brooks et al. each raw has a random mixture of four cameras. The other names are single cameras, for
asking what a policy does with a sensor whose colours it never saw.

Source of the single cameras: the table of LibRaw 0.22.2 (src/tables/colordata.cpp, after Adobe's DNG Converter).
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from adaptiveisp.errors import UsageError, shown
from adaptiveisp.utils import defaults
from adaptiveisp.utils.color import RGB_TO_XYZ, XYZ_TO_CAMERA
from adaptiveisp.utils.yaml_files import read_yaml

CameraName = str
"""A key of `CAMERA_MATRICES`, or the path of a YAML file."""
Matrix = tuple[tuple[float, float, float], ...]
"""Three rows of an XYZ → camera matrix."""
Matrices = tuple[Matrix, ...]

FILE_KEY = "xyz-to-camera"
"""Key of the matrices in a file."""
FILE_EXTENSIONS = (".yaml", ".yml")
MOST_MATRICES = 100
LEAST_ROW = 1e-3
"""Least sum of a row, the answer of a colour to white, by which the row is divided."""


def _of_table(*entries: int) -> Matrices:
    """One camera of nine entries of the table, in units of 0.0001, row by row."""
    rows = [[entry / 1e4 for entry in entries[start : start + 3]] for start in (0, 3, 6)]
    return (tuple((a, b, c) for a, b, c in rows),)


CAMERA_MATRICES: dict[str, Matrices] = {
    defaults.CAMERA_MATRIX: XYZ_TO_CAMERA,
    "canon-5d4": _of_table(6446, -366, -864, -4436, 12204, 2513, -952, 2496, 6348),
    "fujifilm-gfx100": _of_table(16212, -8423, -1583, -4336, 12583, 1937, -195, 726, 6199),
    "leaf-aptus-22": _of_table(8236, 1746, -1313, -8251, 15953, 2428, -3672, 5786, 5771),
    "sigma-sd1": _of_table(5133, -1895, -353, 4978, 744, 144, 3837, 3069, 2777),
}
"""Name → matrices. The single cameras are the Canon EOS 5D Mark IV (the camera of LOD), the Fujifilm GFX 100 (filters
that overlap little), the Leaf Aptus 22 (a CCD whose filters overlap more) and the Sigma SD1 (three layers of silicon
instead of filters, whose colours overlap most). docs/calibrate.md says how far each is from the mixtures of Brooks."""


def find_camera_matrices(camera: CameraName) -> Matrices:
    """The XYZ → camera matrices of a name or of a file.

    Args:
        camera: a key of `CAMERA_MATRICES`, or the path of a YAML file with the key `xyz-to-camera`: a 3x3 matrix, as in
            DNG's ColorMatrix1, or a list of such matrices, of which each raw gets a random mixture.

    Raises:
        UsageError: there is no such name, or the file holds no usable matrices.
    """
    check_camera_name(camera)
    return CAMERA_MATRICES.get(camera) or read_camera_matrices(Path(camera))


def check_camera_name(camera: CameraName) -> None:
    """Refuses a text that is neither a name of cameras nor that of a YAML file; no file is read.

    Raises:
        UsageError: the text is neither.
    """
    if camera not in CAMERA_MATRICES and Path(camera).suffix.lower() not in FILE_EXTENSIONS:
        choices = f"choose from {', '.join(CAMERA_MATRICES)}, or give a YAML file with {FILE_KEY}"
        raise UsageError(f"camera_matrix {shown(camera)} does not exist; {choices}")


def read_camera_matrices(path: Path) -> Matrices:
    """Reads the matrices in a YAML file, see `find_camera_matrices`.

    Raises:
        UsageError: the file is missing or is no YAML file, or a matrix cannot be that of a camera.
    """
    remedy = f"give {FILE_KEY}: and a 3x3 matrix from XYZ to camera, as in DNG's ColorMatrix1, or a list of them"
    content = read_yaml(Path(path), UsageError, remedy)
    if not isinstance(content, dict) or FILE_KEY not in content:
        raise UsageError(f"{path}: has no {FILE_KEY}; {remedy}")
    given: Any = content[FILE_KEY]
    several = [given] if _is_matrix(given) or not isinstance(given, list) else given
    if not 1 <= len(several) <= MOST_MATRICES:
        raise UsageError(f"{path}: {FILE_KEY} holds {len(several)} matrices; give 1 to {MOST_MATRICES}")
    for number, matrix in enumerate(several, 1):
        which = f"matrix {number} of {FILE_KEY}" if len(several) > 1 else FILE_KEY
        if not _is_matrix(matrix):
            raise UsageError(f"{path}: {which} is {shown(matrix)}; {remedy}")
        if problem := _problem(matrix):
            raise UsageError(f"{path}: {which} {problem}; {remedy}")
    return tuple(tuple((float(a), float(b), float(c)) for a, b, c in matrix) for matrix in several)


def _is_matrix(value: Any) -> bool:
    """Whether a value of a file is three lists of three finite numbers."""
    rows = value if isinstance(value, list) and len(value) == 3 else []
    if not rows or not all(isinstance(row, list) and len(row) == 3 for row in rows):
        return False
    return all(
        isinstance(entry, int | float) and not isinstance(entry, bool) and abs(entry) < 1e6 and math.isfinite(entry)
        for row in rows
        for entry in row
    )


def _problem(matrix: list[list[float]]) -> str:
    """What a matrix lacks to be that of a camera; "" if nothing."""
    rgb_to_camera = np.array(matrix, dtype=np.float64) @ np.array(RGB_TO_XYZ)
    if (rgb_to_camera.sum(axis=1) < LEAST_ROW).any():
        return "has a row in which white gives no positive value"
    if np.linalg.matrix_rank(rgb_to_camera / rgb_to_camera.sum(axis=1, keepdims=True), tol=1e-4) < 3:
        return "cannot be inverted"
    return ""
