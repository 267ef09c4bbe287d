"""One frame of a source."""

from dataclasses import dataclass
from typing import Any

from adaptiveisp.raw.headerless import BayerHeader


@dataclass(frozen=True)
class Frame:
    """One frame of a source.

    Attributes:
        raw: the frame, as `AdaptiveISP` takes it: a raw, a file, or pixels or bytes with a header.
        name: name for results and messages.
        time_s: time of the frame in seconds from the start of the source; None if unknown.
        header: facts about the frame; None takes those of the stream.
    """

    raw: Any
    name: str
    time_s: float | None = None
    header: BayerHeader | None = None
