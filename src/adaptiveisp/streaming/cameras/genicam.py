"""Cameras of the GenICam standard (GigE Vision, USB3 Vision, …) by the library harvesters.

A producer of the camera's vendor, a .cti file, gives access to the hardware. Never run on hardware: see `opening`.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.errors import RawFileError, UsageError, first_few
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.pixel_formats import Layout, PixelFormat, pixel_format
from adaptiveisp.streaming.cameras.stated_facts import POLL_SECONDS, STALLED_SECONDS, agreed, no_frame, offered
from adaptiveisp.streaming.frame import Frame
from adaptiveisp.utils.optional_imports import import_extra

PRODUCERS = "GENICAM_GENTL64_PATH"
"""Environment variable with the folders of the producers. Source: GenTL standard 1.6, section 2.3."""


def producer_files(source: str) -> list[str]:
    """The producers that SOURCE names: `genicam:FILE.cti`, or `genicam:` for those of GENICAM_GENTL64_PATH.

    Raises:
        UsageError: there are none.
    """
    name = source.removeprefix("genicam:").partition("#")[0]
    if name:
        if not Path(name).is_file():
            raise UsageError(f"{source}: there is no producer {name}; give the .cti file of the camera's vendor")
        return [name]
    folders = [folder for folder in os.environ.get(PRODUCERS, "").split(os.pathsep) if folder]
    files = sorted({str(path) for folder in folders for path in Path(folder).glob("*.cti")})
    if not files:
        where = f"the folders of {PRODUCERS}" if folders else f"{PRODUCERS}, which is not set"
        raise UsageError(f"{source}: no producer in {where}; give genicam:FILE.cti, the file of the camera's vendor")
    return files


class GenicamCamera:
    """Opens a GenICam camera, as often as it is called.

    Args:
        source: `genicam:FILE.cti`, or `genicam:` for the producers of GENICAM_GENTL64_PATH; where there are several
            cameras, `#` and the serial number, or the place in the list from 0, choose one.
        declared: facts of the user; None for none.

    Raises:
        AdaptiveISPError: harvesters is not installed.
        UsageError: there is no producer.
    """

    def __init__(self, source: str, declared: BayerHeader | None):
        self.source, self.declared = source, declared
        self._core = import_extra("harvesters.core", "genicam")
        modules = [import_extra(f"genicam.{name}", "genicam") for name in ("gentl", "genapi")]
        self._failures: tuple[type[Exception], ...] = tuple(module.GenericException for module in modules)
        self._caught: tuple[type[Exception], ...] = (*self._failures, OSError, ValueError, KeyError)
        self._denied: type[Exception] = modules[0].AccessDeniedException
        self._files = producer_files(source)

    def __call__(self, stopped: Event) -> Iterator[Frame]:
        """Yields the frames of the camera until it is lost, or the event is set.

        Raises:
            RawFileError: the camera cannot be opened, or gives no frames.
            UsageError: it gives another size or format than was declared, or one that is not read.
        """
        harvester, acquirer = self._core.Harvester(), None
        try:
            for file in self._files:
                harvester.add_file(file)
            harvester.update()
            acquirer = harvester.create(self._choice(harvester.device_info_list))
            self._ask(acquirer.remote_device.node_map)
            acquirer.start()
            yield from self._frames(acquirer, stopped)
        except self._denied:
            raise RawFileError(f"{self.source}: is used by another program, or may not be opened; end it") from None
        except self._caught as error:
            remedy = "check its cable, its power and, in the vendor's viewer, its settings"
            raise RawFileError(f"{self.source}: failed ({type(error).__name__}: {error}); {remedy}") from None
        finally:
            with suppress(*self._failures):  # the camera is gone
                if acquirer is not None:
                    acquirer.destroy()
                harvester.reset()

    def _choice(self, found: list[Any]) -> Any:
        """What `Harvester.create` takes: the place of the camera in the list, or its serial number.

        Raises:
            RawFileError: there is no camera.
            UsageError: there are several, and none was chosen.
        """
        wanted = self.source.partition("#")[2]
        if not found:
            files = first_few(self._files)
            raise RawFileError(f"{self.source}: no camera was found by {files}; check its cable, power and address")
        if wanted.isdigit() and int(wanted) < len(found):
            return int(wanted)
        if wanted:
            return {"serial_number": wanted}
        if len(found) > 1:
            names = first_few(f"#{number} {info}" for number, info in enumerate(found))
            raise UsageError(f"{self.source}: there are {len(found)} cameras: {names}; add #0 or # and a serial number")
        return 0

    def _ask(self, nodes: Any) -> None:
        """Sets the declared format and size.

        Raises:
            UsageError: the camera does not give the format.
        """
        declared = self.declared or BayerHeader()
        if declared.format is not None:
            names = list(nodes.PixelFormat.symbolics)
            name = offered(pixel_format(declared.format), names)
            if name is None:
                text = f"does not give {declared.format}, only {first_few(names, 12)}; correct --raw-format"
                raise UsageError(f"{self.source}: {text}")
            if nodes.PixelFormat.value != name:
                nodes.PixelFormat.value = name
        for node, value in ((nodes.Width, declared.width), (nodes.Height, declared.height)):
            if value is not None and node.value != value:
                node.value = value

    def _frames(self, acquirer: Any, stopped: Event) -> Iterator[Frame]:
        last, number = time.monotonic(), 0
        first: int | None = None
        while not stopped.is_set():
            try:
                buffer = acquirer.try_fetch(timeout=POLL_SECONDS)
            except ValueError as error:  # harvesters 1.4 unpacks at once, of padded rows the padding too
                remedy = "choose a width without padding, or an unpacked format such as BayerRG12"
                raise RawFileError(f"{self.source}: harvesters cannot unpack its frames ({error}); {remedy}") from None
            if buffer is None:  # none yet, or an incomplete one, which harvesters has queued again
                if time.monotonic() - last >= STALLED_SECONDS:
                    raise RawFileError(no_frame(self.source))
                continue
            last = time.monotonic()
            with buffer:  # afterwards the camera may write to it
                content, facts = self._content(buffer)
                when = self._time(buffer)
            first = when if first is None else first
            time_s = None if when is None or first is None else (when - first) / 1e9
            yield Frame(content, f"frame-{number:06d}", time_s, facts)
            number += 1

    def _time(self, buffer: Any) -> int | None:
        """The time of a buffer in nanoseconds; None if the producer does not state it."""
        try:
            return int(buffer.timestamp_ns)
        except self._failures:
            return None

    def _content(self, buffer: Any) -> tuple[NDArray[np.uint8], BayerHeader]:
        """A copy of a buffer's bytes, and their facts.

        The bytes are those of the producer. `component.data` is not used: of padded rows, harvesters 1.4 unpacks the
        padding too.

        Raises:
            UsageError: the format is not read, or is another one than was declared.
        """
        component = buffer.payload.components[0]
        width, height = int(component.width), int(component.height)
        try:
            how = pixel_format(component.data_format)
        except UsageError as error:
            raise UsageError(f"{self.source}: {error}; choose BayerRG12p or similar in the vendor's viewer") from None
        self._check_width(how, width)
        stride = how.row_bytes(width) + int(component.x_padding)
        stated = BayerHeader(width, height, format=how.name, stride=stride)
        whole = np.frombuffer(buffer.module.raw_buffer, np.uint8, offset=int(component.data_offset))
        return whole[: stride * height].copy(), agreed(self.source, self.declared, stated)

    def _check_width(self, how: PixelFormat, width: int) -> None:
        """Refuses rows that end within a group of packed pixels: the next row then begins within a byte.

        Raises:
            UsageError: the rows do so.
        """
        values = how.group[0]
        if how.layout is not Layout.WHOLE and width % values:
            text = f"its width of {width} is no multiple of {values}, as {how.name} needs"
            raise UsageError(f"{self.source}: {text}; set another width, or an unpacked format")
