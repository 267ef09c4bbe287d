"""An external ISP that is a program with files: it reads a DNG and writes a picture, once for each raw."""

import string
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adaptiveisp.errors import OutputError, PipelineError, first_few
from adaptiveisp.isp.module import Param
from adaptiveisp.raw.dng import dng_bytes
from adaptiveisp.types import RawImage
from adaptiveisp.utils.config import require

SECONDS = 60.0
"""Default of the longest time that a program may take for a raw."""


@dataclass(frozen=True)
class ProgramISP:
    """A program that is started for each raw.

    Attributes:
        name: key in pipelines and policies.
        params: its parameters, whose `neutral` values are the program's own defaults.
        command: the program and its arguments as `str.format` templates: `{raw}` is the DNG, `{picture}` the file to
            write, `{folder}` their temporary folder, and every parameter stands under its name, as in `{bright:.4f}` or
            `{passes:.0f}`.
        picture: template of the file that the program writes: 8-bit RGB or grey in any format that Pillow reads.
        seconds: longest time of a call.
        cost_ms: milliseconds of a call, for tables of costs.

    Raises:
        UsageError: a template names something else.
    """

    name: str
    params: tuple[Param, ...]
    command: Sequence[str]
    picture: str = "{folder}/picture.ppm"
    seconds: float = SECONDS
    cost_ms: float = 0.0

    def __post_init__(self) -> None:
        known = {"raw", "picture", "folder", *(param.name for param in self.params)}
        require(len(self.command) > 0, f"{self.name}: command must name a program")
        for template in (*self.command, self.picture):
            named = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
            unknown = sorted(named - known)
            require(
                not unknown, f"{self.name}: {template!r} names {first_few(unknown)}; use {first_few(sorted(known))}"
            )

    def render(self, raw: RawImage, params: Mapping[str, float]) -> NDArray[Any]:
        """The picture that the program makes of a raw, (height, width, 3) or (height, width) of 8 bits.

        Args:
            raw: a Bayer mosaic or a monochrome raw, which is written as DNG.
            params: every parameter by name.

        Raises:
            PipelineError: the raw is no mosaic, or the program is missing, fails, takes too long, or writes no picture.
        """
        with tempfile.TemporaryDirectory(prefix="adaptiveisp-") as folder:
            file = Path(folder) / "raw.dng"
            file.write_bytes(dng_of(raw, self.name))
            facts: dict[str, Any] = {"raw": str(file), "folder": folder, **params}
            picture = self.picture.format(**facts)
            self._run([template.format(picture=picture, **facts) for template in self.command])
            return self._read(Path(picture))

    def _run(self, command: list[str]) -> None:
        """Runs the program.

        Raises:
            PipelineError: it is missing, fails or takes too long.
        """
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=self.seconds, check=False
            )
        except OSError as error:
            raise PipelineError(
                f"{self.name}: {command[0]} cannot be started ({error.strerror}); install it"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise PipelineError(f"{self.name}: took more than {self.seconds:g} s; raise seconds") from error
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip().splitlines()
            reason = words[-1] if words else "no message"
            raise PipelineError(f"{self.name}: {command[0]} ended with {done.returncode} ({reason}); try it by hand")

    def _read(self, picture: Path) -> NDArray[Any]:
        """The pixels of the picture.

        Raises:
            PipelineError: there is none, or it has another depth.
        """
        try:
            with Image.open(picture) as opened:
                if opened.mode not in ("RGB", "L"):
                    raise PipelineError(f"{self.name}: wrote a picture of mode {opened.mode}; make it write 8-bit RGB")
                return np.array(opened)
        except FileNotFoundError as error:
            raise PipelineError(f"{self.name}: wrote no {picture.name}; correct `picture` or the command") from error
        except OSError as error:
            raise PipelineError(f"{self.name}: {picture.name} is no picture ({error}); correct the command") from error


def dng_of(raw: RawImage, name: str) -> bytes:
    """The raw as a DNG, for an ISP of that name.

    Raises:
        PipelineError: a DNG cannot hold the raw.
    """
    try:
        return dng_bytes(raw, raw.path or Path("RawImage"))
    except OutputError as error:
        remedy = "give mosaics; `synth --format dng` makes them of photos"
        raise PipelineError(f"{name}: {error}; {remedy}") from error
