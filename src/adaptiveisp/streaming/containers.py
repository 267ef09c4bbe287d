"""Sources of frames in files that hold several: stacks of arrays, raw video, and recordings of ROS."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from adaptiveisp.errors import AdaptiveISPError, RawFileError, UsageError
from adaptiveisp.raw.extensions import STACK_EXTENSIONS
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.reader import count_frames, read_frames
from adaptiveisp.raw.sidecars import find_header
from adaptiveisp.streaming.bags import frames_of_bag, is_bag
from adaptiveisp.streaming.frame import Frame
from adaptiveisp.streaming.raw_video import VIDEO_EXTENSIONS, frames_of_raw_video, holds_raw_video


def open_container(path: Path, header: BayerHeader | None, topic: str | None) -> Iterable[Frame] | None:
    """The frames of a file of several frames; None for other files and folders, and for video that is no raw.

    Args:
        path: an existing file or folder.
        header: declared facts, which sidecars complete; with `frame`, a stack is not taken apart.
        topic: topic of the images in a recording of ROS.

    Raises:
        UsageError: a topic is given for another kind of source.
        AdaptiveISPError: the library that reads this kind of file is not installed.
    """
    if is_bag(path):
        return frames_of_bag(path, find_header(path, header), topic)
    if topic is not None:
        raise UsageError(f"{path}: --topic is for recordings of ROS (.mcap, .db3, .bag); leave it out")
    extension = path.suffix.lower()
    if extension in STACK_EXTENSIONS and not path.is_dir() and (header is None or header.frame is None):
        return frames_of_stack(path, header)
    if extension in VIDEO_EXTENSIONS:
        facts = find_header(path, header)
        return frames_of_raw_video(path, facts) if holds_raw_video(path, facts) else None
    return None


def unstacked(frames: Iterable[Frame], header: BayerHeader | None) -> Iterator[Frame]:
    """Yields frames, and of files that hold several frames each of them under the file's name and its number.

    Args:
        frames: frames that may be files.
        header: declared facts; with `frame`, no file is taken apart.
    """
    for frame in frames:
        path = frame.raw
        one = header is not None and header.frame is not None
        if one or not isinstance(path, Path) or path.suffix.lower() not in STACK_EXTENSIONS:
            yield frame
            continue
        try:
            several = count_frames(path, header) > 1
        except AdaptiveISPError:  # the stream reads the file, and reports the error without ending
            several = False
        if several:
            yield from frames_of_stack(path, header, str(Path(frame.name).with_suffix("")))
        else:
            yield frame


def frames_of_stack(path: Path, header: BayerHeader | None = None, name: str | None = None) -> Iterator[Frame]:
    """Yields the frames of a stack of arrays, of a TIFF of several pages, or of PGMs one behind the other.

    Args:
        path: the file.
        header: facts that it does not state.
        name: first part of the names of its frames; the file's own by default.

    Raises:
        RawFileError: the file is damaged.
    """
    facts = header if header is not None else BayerHeader()
    if count_frames(path, header) == 1:
        yield Frame(path, path.name)
        return
    for number, raw in enumerate(read_frames(path, header)):
        label = f"{name or path.stem}-{number:06d}"
        if isinstance(raw, RawFileError):
            # The stream reads the frame again, and reports its error without ending.
            yield Frame(path, label, header=replace(facts, frame=number))
        else:
            yield Frame(raw, label)
