"""The command `view`: a page in the browser to look at raws, pipelines, reports and runs."""

import argparse
import contextlib
import webbrowser
from pathlib import Path
from typing import Any

from adaptiveisp.cli.console import given, say, set_up_torch
from adaptiveisp.cli.exit_codes import DONE
from adaptiveisp.cli.options import (
    DEFAULT,
    DETECTOR_HELP,
    LIGHTS_HELP,
    POLICY_HELP,
    SIZE_HELP,
    WHITE_BALANCE_HELP,
    add_command,
    add_common,
    add_modules,
    add_raw_facts,
    add_sensor,
    port,
    positive,
    raw_facts,
    size,
    unit,
)
from adaptiveisp.errors import UsageError
from adaptiveisp.utils import defaults
from adaptiveisp.utils.optional_imports import require_extra

INPUT_HELP = (
    "raw files, folders, globs; a data set (as for eval); the folder of an eval or of a training run; the output of "
    "stream (.jsonl). Without inputs: sample raws"
)


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "view",
        "look at raws, pipelines, reports and training runs in a browser",
        "Opens a page in the browser on this machine: raws with every stage of their pipeline and its sliders, why a "
        "policy chose them, reports of eval, and training runs while they run.",
    )
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help=INPUT_HELP)
    text = f"a policy that the menu has beside the package's own: {POLICY_HELP}; may be repeated"
    parser.add_argument("--policy", dest="policies", action="append", default=[], metavar="P", help=text)
    text = f"a detector of the menu, the first is chosen at first: {DETECTOR_HELP}; may be repeated"
    parser.add_argument("--detector", dest="detectors", action="append", default=[], metavar="D", help=text)
    parser.add_argument("--size", type=size, metavar="N", help=f"{SIZE_HELP}; 224 for the samples")
    text = f"least score of the boxes that the page gets {DEFAULT}"
    parser.add_argument("--confidence", type=unit, default=defaults.CONFIDENCE, metavar="S", help=text)
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images of a COCO JSON")
    parser.add_argument("--light", metavar="L", help=f"its images are photos, of which raws are made: {LIGHTS_HELP}")
    parser.add_argument("--draws", type=positive, metavar="N", help="draws of camera, light and noise for each photo")
    add_sensor(parser)
    text = "port of the page; 0 takes a free one (default %(default)s)"
    parser.add_argument("--port", type=port, default=0, metavar="PORT", help=text)
    text = "also show the frames of `stream --mjpeg PORT` on this machine, on the page of its output"
    parser.add_argument("--mjpeg", type=port, metavar="PORT", help=text)
    parser.add_argument("--no-browser", action="store_true", help="print the address instead of opening it")
    text = "address to listen on instead of this machine's loopback; only with --allow-remote"
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help=text)
    text = "let other machines in, which then see all that was given; the connection is not encrypted"
    parser.add_argument("--allow-remote", action="store_true", help=text)
    parser.add_argument("--camera-white-balance", action="store_true", help=WHITE_BALANCE_HELP)
    add_raw_facts(parser)
    add_modules(parser)
    add_common(parser, without=("workers", "overwrite"))
    parser.set_defaults(command=view)


def view(options: argparse.Namespace) -> int:
    """Serves the page until it is interrupted."""
    require_extra("view", "fastapi", "uvicorn")
    from adaptiveisp.serving.guard import check_host

    check_host(options.host, options.allow_remote)
    device = set_up_torch(options)
    from adaptiveisp.inference.pretrained import warn_of_other_detectors
    from adaptiveisp.serving.entries import Catalogue
    from adaptiveisp.serving.no_detector import NAME as NO_DETECTOR
    from adaptiveisp.serving.opening import fill
    from adaptiveisp.serving.pages import all_pages
    from adaptiveisp.serving.server import ViewServer
    from adaptiveisp.serving.studio import Studio
    from adaptiveisp.serving.uploads import Uploads

    warn_of_other_detectors(options.policies, options.detectors)
    catalogue, header = Catalogue(), raw_facts(options)
    fill(catalogue, options.inputs, _facts(options, header))
    with Uploads(catalogue, header) as uploads, contextlib.suppress(KeyboardInterrupt):
        studio = Studio(catalogue, _config(options, device))
        if list(studio.detectors) == [NO_DETECTOR]:
            remedy = "run `adaptiveisp weights get yolov3-tiny`, or give --detector"
            catalogue.notes.append(f"no detector is installed: {remedy}")
        if not options.inputs:
            from adaptiveisp.serving.samples import add_samples

            add_samples(catalogue, studio.detector(next(iter(studio.detectors))), uploads.folder, options.seed)
        with ViewServer(all_pages(studio, uploads, options.mjpeg), options.host, options.port) as server:
            _show(server.address, options, uploads.folder)
            server.run()
    return DONE


def _facts(options: argparse.Namespace, header: Any) -> Any:
    """What the options say about the inputs."""
    from adaptiveisp.data.synthetic import SynthesisConfig
    from adaptiveisp.serving.opening import InputFacts

    chosen = given(options, "draws", "noise", "bits", "camera_matrix", "illuminants")
    if options.light is None and chosen:
        raise UsageError(f"--{next(iter(chosen)).replace('_', '-')}: is for raws made of photos; add --light")
    synthesis = None if options.light is None else SynthesisConfig(options.light, seed=options.seed, **chosen)
    return InputFacts(options.images, synthesis, header, options.limit)


def _config(options: argparse.Namespace, device: str) -> Any:
    """The settings of the work."""
    from adaptiveisp.serving.samples import SAMPLE_SIZE
    from adaptiveisp.serving.studio import StudioConfig

    return StudioConfig(
        tuple(options.policies),
        tuple(options.detectors),
        options.size or (None if options.inputs else SAMPLE_SIZE),
        options.confidence,
        options.camera_white_balance,
        device,
    )


def _show(address: str, options: argparse.Namespace, folder: Path) -> None:
    """Prints the address, and opens it in a browser.

    Args:
        address: with the token.
        options: of the command.
        folder: a folder of our own. The browser is given a file there that leads to the address, since other users of
            the machine can see the arguments of its process.
    """
    print(address, flush=True)
    if not options.quiet:
        say("press Ctrl-C to end")
    if options.no_browser:
        return
    page = folder / "open.html"
    page.write_text(f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={address}">')
    if not webbrowser.open(page.as_uri()):
        say("no browser was found; open the address above")
