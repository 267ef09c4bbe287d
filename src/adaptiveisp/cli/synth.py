"""The command `synth`: makes labelled synthetic raws from labelled photos."""

import argparse
from pathlib import Path
from typing import Any

from adaptiveisp.cli.console import given, progress, report_skips, set_up_torch
from adaptiveisp.cli.options import (
    DEFAULT,
    DRAWS_HELP,
    LIGHTS_HELP,
    add_command,
    add_common,
    add_sensor,
    positive,
)
from adaptiveisp.utils import defaults

FORMATS = ("png16", "dng")
"""As in `data.synthetic`, which is not imported for them."""


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "synth",
        "make labelled synthetic raws from labelled photos",
        "Makes labelled raws from labelled sRGB photos and writes OUT/<light>/images and OUT/<light>/labels.json.",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DATA", help="COCO JSON of the photos")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of its images")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--light", required=True, metavar="L[,L…]", help=LIGHTS_HELP)
    parser.add_argument("--draws", type=positive, default=defaults.DRAWS, metavar="N", help=f"{DRAWS_HELP} {DEFAULT}")
    parser.add_argument(
        "--format", choices=FORMATS, default=defaults.RAW_FORMAT, help=f"file format of the raws {DEFAULT}"
    )
    add_sensor(parser)
    add_common(parser, without=("workers",))
    parser.set_defaults(command=synth)


def synth(options: argparse.Namespace) -> int:
    """Makes labelled synthetic raws from labelled photos."""
    from adaptiveisp.data.formats.coco import load_coco
    from adaptiveisp.data.synthesize import synthesize
    from adaptiveisp.data.synthetic import SynthesisConfig
    from adaptiveisp.evaluation.tables import table

    set_up_torch(options)
    sensor = given(options, "noise", "bits", "camera_matrix", "illuminants")
    config = SynthesisConfig(options.light, options.draws, seed=options.seed, format=options.format, **sensor)
    photos = len(load_coco(options.data).images)
    total = min(photos, options.limit or photos) * options.draws * len(config.lights)
    with progress(options, total, "synth") as bar:
        summary = synthesize(
            config,
            options.data,
            options.images,
            options.out,
            limit=options.limit,
            overwrite=options.overwrite,
            on_image=lambda name: bar.update(),
        )
    code = report_skips(options.out, summary.skipped, summary.provenance)
    if not options.quiet:
        rows = [(light, str(n), str(options.out / light / "labels.json")) for light, n in summary.written.items()]
        print(table(("light", "raws", "labels"), rows))
    return code
