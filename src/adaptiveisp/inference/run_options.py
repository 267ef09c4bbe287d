"""What a run writes and how it reads, and the protocol of functions that place further files."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from adaptiveisp.inference.result import Result
from adaptiveisp.inference.result_files import FileSet, PictureKind
from adaptiveisp.raw.headerless import BayerHeader

if TYPE_CHECKING:
    from adaptiveisp.inference.predictor import AdaptiveISP

Written = Literal["json", "boxes", "all"]
"""What is written beside the rows: nothing, the pictures with boxes, or all files of each input."""


@runtime_checkable
class FrameWriter(Protocol):
    """Places further files of a result; it is called on the workers' threads, and may be called on several at once."""

    def __call__(self, isp: "AdaptiveISP", result: Result, files: FileSet, stem: str) -> None:
        """Places the files, whose names begin with the stem.

        Raises:
            AdaptiveISPError: the frame is skipped for it.
        """
        ...


@dataclass(frozen=True)
class RunOptions:
    """The files to write, and how the frames are read.

    Attributes:
        full: whether to write the rendered image at full size.
        save_steps: whether to write the image after each module, and all of them in one strip.
        save_params: whether to write one table of all parameters.
        header: size, depth and pattern of files that have no header.
        write: what is written beside the rows.
        pictures: kind of the pictures.
        rows: "jsonl", or "parquet", which takes the place of the JSON lines at the end.
        batch: frames that go through the detector at once.
        workers: threads, see `AdaptiveISP.map`.
        writers: place further files of each frame, with `write` "all".
        explain: whether one of them writes what each module is worth to each box, see `explanation`.
    """

    full: bool = False
    save_steps: bool = False
    save_params: bool = False
    header: BayerHeader | None = None
    write: Written = "all"
    pictures: PictureKind = "png"
    rows: Literal["jsonl", "parquet"] = "jsonl"
    batch: int = 1
    workers: int | None = None
    writers: tuple[FrameWriter, ...] = ()
    explain: bool = False

    def settings(self) -> dict[str, Any]:
        """Those that decide what is written, by the names of the options, for `--resume`."""
        return {
            "--full": self.full,
            "--save-steps": self.save_steps,
            "--save-params": self.save_params,
            "--explain": self.explain,
            "--raw-…": None if self.header is None else repr(self.header),
            "--write": self.write,
            "--pictures": self.pictures,
            "--format": self.rows,
            "--batch": self.batch,
        }
