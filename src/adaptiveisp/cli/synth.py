"""The command `synth`: makes a labelled synthetic raw set of labelled photos."""

import argparse
from pathlib import Path
from typing import Any

from adaptiveisp.cli.console import progress, report_skips, set_up_torch
from adaptiveisp.cli.options import LIGHTS_HELP, add_command, add_common, add_data, positive


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "synth",
        "labelled synthetic raw set from labelled photos",
        "Turns labelled sRGB photos into labelled raws: OUT/<light>/images and OUT/<light>/labels.json.",
    )
    add_data(parser, images_required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--light", required=True, metavar="L[,L…]", help=LIGHTS_HELP)
    parser.add_argument("--draws", type=positive, default=1, metavar="N", help="lights and noises a photo (default 1)")
    parser.add_argument("--format", choices=("png16", "dng"), default="png16", help="default png16")
    parser.add_argument("--noise", choices=("sensor", "brooks", "none"), default="sensor", help="default sensor")
    add_common(parser, without=("workers",))
    parser.set_defaults(command=synth)


def synth(options: argparse.Namespace) -> int:
    """Makes a labelled synthetic raw set."""
    from adaptiveisp.data.formats.coco import load_coco
    from adaptiveisp.data.synthesize import synthesize
    from adaptiveisp.data.synthetic import SynthesisConfig
    from adaptiveisp.evaluation.tables import table

    set_up_torch(options)
    config = SynthesisConfig(options.light, options.draws, options.noise, options.seed, options.format)
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
