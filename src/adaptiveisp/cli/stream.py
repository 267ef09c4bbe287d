"""The command `stream`: detects objects on a stream of frames."""

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptiveisp.cli.console import check_files, progress, say, set_up_torch
from adaptiveisp.cli.exit_codes import DONE, DONE_WITH_SKIPS
from adaptiveisp.cli.options import (
    DEFAULT,
    DETECTOR_HELP,
    POLICY_HELP,
    SIZE_HELP,
    WHITE_BALANCE_HELP,
    add_backend,
    add_command,
    add_common,
    add_modules,
    add_raw_facts,
    port,
    positive,
    raw_facts,
    seconds,
    size,
    unit,
)
from adaptiveisp.errors import DataError, UsageError
from adaptiveisp.utils import defaults

if TYPE_CHECKING:
    from adaptiveisp.streaming.stream import Stream

SOURCE_HELP = (
    "a file of one or many frames, - for headerless frames on standard input, a folder of raw files, a video file or "
    "the address of a stream (PyAV), a camera (/dev/video0, picamera2:0 or genicam:FILE.cti), a recording of ROS, or "
    "my_pkg.my_file:source, a function that returns frames"
)


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "stream",
        "detect objects on a stream of frames",
        "Develops frames as they come, renders each by the pipeline that a policy chooses, smoothed in time, detects "
        "objects, and writes one line of JSON a frame.",
    )
    parser.add_argument("source", metavar="SOURCE", help=SOURCE_HELP)
    text = "file of JSON lines, - for standard output " + DEFAULT
    parser.add_argument("--out", default="-", metavar="FILE", help=text)
    parser.add_argument("--video", metavar="FILE", help="also write a video with the boxes drawn in (PyAV)")
    parser.add_argument("--rate", type=float, default=30.0, metavar="N", help=f"frames a second of --video {DEFAULT}")
    text = "also show the frames with their boxes on http://127.0.0.1:PORT/, to this machine only; 0 takes a free port"
    parser.add_argument("--mjpeg", type=port, metavar="PORT", help=text)
    parser.add_argument("--window", action="store_true", help="also show them in a window (opencv-python)")
    text = "also write the numbers of frames, results and drops as JSON at the end"
    parser.add_argument("--summary", type=Path, metavar="FILE", help=text)
    parser.add_argument("--policy", default=defaults.POLICY, metavar="P", help=f"{POLICY_HELP} {DEFAULT}")
    parser.add_argument("--detector", default=defaults.DETECTOR, metavar="D", help=f"{DETECTOR_HELP} {DEFAULT}")
    parser.add_argument("--size", type=size, metavar="N", help=SIZE_HELP)
    text = f"least score of the boxes that are written {DEFAULT}"
    parser.add_argument("--confidence", type=unit, default=defaults.CONFIDENCE, metavar="S", help=text)
    text = f"run the policy on every n-th frame, and its last pipeline on the others {DEFAULT}"
    parser.add_argument("--every", type=positive, default=1, metavar="N", help=text)
    text = f"time constant of the smoothing of parameters in frames, 0 for none {DEFAULT}"
    parser.add_argument("--smooth", type=float, default=4.0, metavar="N", help=text)
    text = "drop the oldest waiting frame when frames come too fast, instead of holding the source back"
    parser.add_argument("--drop", action="store_true", help=text)
    text = (
        "frames that are processed at once, which share the threads: 1 for the least delay (default: one for each "
        "thread, which gives most frames a second)"
    )
    parser.add_argument("--in-flight", type=positive, metavar="N", help=text)
    text = "add to each line by how many EV the sensor should change its exposure for the next frame"
    parser.add_argument("--exposure-hint", action="store_true", help=text)
    parser.add_argument("--follow", action="store_true", help="wait for further files of a folder, until interrupted")
    parser.add_argument("--topic", metavar="T", help="topic of the images in a recording of ROS")
    text = f"seconds in which a lost camera or address is tried again; 0 for never (default {defaults.RECONNECT_S:g})"
    parser.add_argument("--reconnect", type=seconds, default=defaults.RECONNECT_S, metavar="SECONDS", help=text)
    parser.add_argument("--camera-white-balance", action="store_true", help=WHITE_BALANCE_HELP)
    add_backend(parser)
    add_raw_facts(parser)
    add_modules(parser)
    add_common(parser, without=("workers", "seed"))
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Processes the stream until its end, or until it is interrupted."""
    from adaptiveisp.inference.predictor import AdaptiveISP
    from adaptiveisp.inference.pretrained import warn_of_other_detectors
    from adaptiveisp.raw.shading import NO_SHADING, check_gains
    from adaptiveisp.streaming.smoothing import SmoothingConfig
    from adaptiveisp.streaming.sources import open_source
    from adaptiveisp.streaming.stream import Stream, StreamConfig

    _check_outputs(options)
    device = set_up_torch(options)
    smoothing = SmoothingConfig(options.smooth) if options.smooth else None
    config = StreamConfig(
        options.every,
        smoothing,
        drop="oldest" if options.drop else "never",
        workers=options.in_flight,
        exposure_hints=options.exposure_hint,
    )
    warn_of_other_detectors([options.policy], [options.detector])
    isp = AdaptiveISP(
        options.policy,
        options.detector,
        options.size,
        options.confidence,
        options.camera_white_balance,
        device,
        options.backend,
        options.precision,
    )
    header = raw_facts(options)
    if header is not None and header.shading not in (None, NO_SHADING):
        check_gains(str(header.shading))  # otherwise each frame of an endless stream would fail
    source = open_source(options.source, header, options.follow, options.topic, options.reconnect)
    stream = Stream(isp, source, header, config)
    interrupted, sinks = False, list[Any]()
    with contextlib.ExitStack() as stack:
        _open_sinks(options, stack, sinks)
        bar = stack.enter_context(progress(options, 0, "stream", unit="frame"))
        try:
            for result in stream:
                for sink in sinks:
                    sink.write(result)
                bar.update()
                if (options.limit and stream.stats.results >= options.limit) or getattr(sinks[-1], "closed", False):
                    break
        except KeyboardInterrupt:  # the usual end of a live stream
            interrupted = True
    _report(stream, sinks, options)
    if not stream.stats.results and not interrupted:
        raise DataError(f"{options.source}: gave no frame that could be used")
    return DONE_WITH_SKIPS if stream.stats.failed else DONE


def _check_outputs(options: argparse.Namespace) -> None:
    """Refuses outputs that cannot be written, that are written twice, or that would replace the source.

    Raises:
        UsageError: one of them is such.
    """
    named = [Path(name) for name in (options.out, options.video) if name not in (None, "-")]
    outputs = [*named, *([options.summary] if options.summary is not None else [])]
    for path in outputs:
        if path.exists() and Path(options.source).exists() and path.samefile(options.source):
            raise UsageError(f"{path}: is the source, which would be lost; choose another name for the output")
    special = [path for path in outputs if path.exists() and not path.is_file() and not path.is_dir()]  # /dev/null
    check_files([path for path in outputs if path not in special], options.overwrite)


def _open_sinks(options: argparse.Namespace, stack: contextlib.ExitStack, sinks: list[Any]) -> None:
    """Appends the sinks that the options name; a window is the last one. The stack closes them.

    Lines of JSON are never left out, nor are frames of a video, unless the source cannot wait.
    """
    from adaptiveisp.streaming.live_view import Mjpeg, Window
    from adaptiveisp.streaming.sink_threads import SinkThread
    from adaptiveisp.streaming.sinks import JsonLines, VideoFile
    from adaptiveisp.streaming.sources import is_live

    window = stack.enter_context(Window()) if options.window else None
    if options.mjpeg is not None:
        view = Mjpeg(options.mjpeg)
        sinks.append(stack.enter_context(SinkThread(view, drop=True)))
    # Files come last, so that a port that is taken leaves none behind.
    sinks.append(stack.enter_context(SinkThread(JsonLines(options.out, options.overwrite))))
    if options.video is not None:
        video = VideoFile(options.video, options.rate, options.overwrite)
        sinks.append(stack.enter_context(SinkThread(video, drop=options.drop or is_live(options.source))))
    if options.mjpeg is not None and not options.quiet:
        say(f"live view on {view.address}")
    if window is not None:
        sinks.append(window)


def _report(stream: "Stream", sinks: list[Any], options: argparse.Namespace) -> None:
    """Prints what happened to the frames, on standard error: standard output may hold the results. Writes --summary."""
    stats = stream.stats
    left_out = {sink.name: sink.dropped for sink in sinks if sink.dropped}
    if options.summary is not None:
        from adaptiveisp.utils.files import write_json
        from adaptiveisp.utils.provenance import provenance

        counts = {sink.name: {"written": sink.written, "dropped": sink.dropped} for sink in sinks}
        detector = stream.isp.detector
        origin = provenance(options.seed, {detector.name: detector.weights_sha256})
        content = {"source": options.source, **stats.to_json(), "sinks": counts, "provenance": origin}
        write_json(options.summary, content)
    if options.quiet:
        return
    busy = ", ".join(f"{name} {seconds / max(stats.results, 1) * 1e3:.1f} ms" for name, seconds in stats.busy.items())
    text = f"{stats.results} of {stats.frames} frames, {stats.dropped} dropped, {len(stats.failed)} failed"
    text += f"; {stats.frames_per_second:.1f} a second ({busy} a frame); {stats.cuts} cuts"
    text += "".join(f"; {name} left out {number}" for name, number in left_out.items())
    print(text, file=sys.stderr)
