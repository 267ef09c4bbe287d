"""The command `stream`: detects objects on a stream of frames."""

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING, Any

from adaptiveisp.cli.console import progress, set_up_torch
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
    positive,
    raw_facts,
    size,
    unit,
)
from adaptiveisp.errors import DataError
from adaptiveisp.utils import defaults

if TYPE_CHECKING:
    from adaptiveisp.streaming.stream import Stream

SOURCE_HELP = (
    "a file of one or many frames, - for headerless frames on standard input, a folder of raw files, a video file or "
    "the address of a stream (PyAV), a recording of ROS, or my_pkg.my_file:source, a function that returns frames"
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
    from adaptiveisp.streaming.sinks import JsonLines, VideoFile
    from adaptiveisp.streaming.smoothing import SmoothingConfig
    from adaptiveisp.streaming.stream import Stream, StreamConfig

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
    stream = Stream(isp, options.source, raw_facts(options), config, options.follow, options.topic)
    interrupted = False
    with contextlib.ExitStack() as stack:
        sinks: list[Any] = [stack.enter_context(JsonLines(options.out, options.overwrite))]
        if options.video is not None:
            sinks.append(stack.enter_context(VideoFile(options.video, options.rate, options.overwrite)))
        bar = stack.enter_context(progress(options, 0, "stream", unit="frame"))
        try:
            for result in stream:
                for sink in sinks:
                    sink.write(result)
                bar.update()
                if options.limit and stream.stats.results >= options.limit:
                    break
        except KeyboardInterrupt:  # the usual end of a live stream
            interrupted = True
        stream.stop()
    _report(stream, options.quiet)
    if not stream.stats.results and not interrupted:
        raise DataError(f"{options.source}: gave no frame that could be used")
    return DONE_WITH_SKIPS if stream.stats.failed else DONE


def _report(stream: "Stream", quiet: bool) -> None:
    """Prints what happened to the frames, on standard error: standard output may hold the results."""
    stats = stream.stats
    if quiet:
        return
    busy = ", ".join(f"{name} {seconds / max(stats.results, 1) * 1e3:.1f} ms" for name, seconds in stats.busy.items())
    counts = f"{stats.results} of {stats.frames} frames, {stats.dropped} dropped, {len(stats.failed)} failed"
    print(f"{counts}; {stats.frames_per_second:.1f} a second ({busy} a frame); {stats.cuts} cuts", file=sys.stderr)
