"""Opens the camera that SOURCE of the command line names.

No kind of camera was run on hardware: the tests use pretended libraries with the interfaces of the real ones.
"""

import re

from adaptiveisp.errors import UsageError
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.streaming.cameras.genicam import GenicamCamera
from adaptiveisp.streaming.cameras.raspberry_pi import RaspberryPiCamera
from adaptiveisp.streaming.cameras.v4l2 import V4l2Camera
from adaptiveisp.streaming.reconnecting import Reconnecting
from adaptiveisp.utils.defaults import RECONNECT_S

_KINDS = (
    (re.compile(r"/dev/(video\d+|v4l/.+)"), V4l2Camera),
    (re.compile(r"picamera2:\d*"), RaspberryPiCamera),
    (re.compile(r"genicam:.*"), GenicamCamera),
)
"""Names of cameras, and what opens them."""


def names_camera(source: str) -> bool:
    """Whether SOURCE names a camera.

    >>> names_camera("/dev/video0"), names_camera("picamera2:0"), names_camera("night.raw")
    (True, True, False)
    """
    return any(pattern.fullmatch(source) for pattern, _ in _KINDS)


def frames_of_camera(source: str, header: BayerHeader | None = None, reconnect: float = RECONNECT_S) -> Reconnecting:
    """The frames of a camera.

    Args:
        source: /dev/videoN, `picamera2:N` or `genicam:FILE.cti`.
        header: declared facts. Size and format are asked for, levels are used; an error says where the camera states
            something else.
        reconnect: seconds in which a lost camera is opened again; 0 for never.

    Raises:
        AdaptiveISPError: the library of this kind of camera is not installed.
        UsageError: this is no name of a camera, or its producer file is missing.
    """
    for pattern, kind in _KINDS:
        if pattern.fullmatch(source):
            return Reconnecting(source, kind(source, header), reconnect)
    raise UsageError(f"{source}: is no camera; give /dev/video0, picamera2:0 or genicam:FILE.cti")
