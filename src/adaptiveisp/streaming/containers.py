"""Sources of frames in files that hold several: stacks of arrays, raw video, and recordings of ROS."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from adaptiveisp.errors import RawFileError, UsageError
from adaptiveisp.raw.extensions import STACK_EXTENSIONS
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.reader import read_frames
from adaptiveisp.streaming.bags import frames_of_bag, is_bag
from adaptiveisp.streaming.raw_video import frames_of_raw_video, holds_raw_video
from adaptiveisp.streaming.sources import VIDEO_EXTENSIONS, Frame


def open_container(path: Path, header: BayerHeader | None, topic: str | None) -> Iterable[Frame] | None:
    """The frames of a file of several frames; None for other files and folders, and for video that is no raw.

    Args:
        path: an existing file or folder.
        header: declared facts; with `frame`, a stack is not taken apart.
        topic: topic of the images in a recording of ROS.

    Raises:
        UsageError: a topic is given for another kind of source.
        AdaptiveISPError: the library that reads this kind of file is not installed.
    """
    if is_bag(path):
        return frames_of_bag(path, header, topic)
    if topic is not None:
        raise UsageError(f"{path}: --topic is for recordings of ROS (.mcap, .db3, .bag); leave it out")
    extension = path.suffix.lower()
    if extension in STACK_EXTENSIONS and not path.is_dir() and (header is None or header.frame is None):
        return frames_of_stack(path, header)
    if extension in VIDEO_EXTENSIONS and holds_raw_video(path, header):
        return frames_of_raw_video(path, header)
    return None


def frames_of_stack(path: Path, header: BayerHeader | None = None) -> Iterator[Frame]:
    """Yields the frames of a stack of arrays, of a TIFF of several pages, or of PGMs one behind the other.

    Args:
        path: the file.
        header: facts that it does not state.

    Raises:
        RawFileError: the file is damaged.
    """
    raws = enumerate(read_frames(path, header))
    facts = header if header is not None else BayerHeader()
    held = next(raws, None)
    while held is not None:
        number, raw = held
        held = next(raws, None)
        if number == 0 and held is None:
            yield Frame(path if isinstance(raw, RawFileError) else raw, path.name)
        elif isinstance(raw, RawFileError):
            # The stream reads the frame again, and reports its error without ending.
            yield Frame(path, f"{path.stem}-{number:06d}", header=replace(facts, frame=number))
        else:
            yield Frame(raw, f"{path.stem}-{number:06d}")
