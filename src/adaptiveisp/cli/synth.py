"""The command `synth`: makes a labelled synthetic raw set of labelled photos."""

import argparse
from pathlib import Path
from typing import Any

from adaptiveisp.cli.console import progress, report_skips, set_up_torch
from adaptiveisp.cli.options import LIGHTS_HELP, add_command, add_common, add_data, positive
from adaptiveisp.errors import UsageError, logger


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
    from adaptiveisp.data.synthesize import SynthOptions, synthesise_set
    from adaptiveisp.evaluation.tables import table
    from adaptiveisp.raw.unprocess import LIGHTS, light_range
    from adaptiveisp.utils.output_folder import claim_folder
    from adaptiveisp.utils.provenance import provenance

    set_up_torch(options)
    lights = tuple(dict.fromkeys(light.strip() for light in options.light.split(",") if light.strip()))
    for light in lights:
        light_range(light)
    if not lights:
        raise UsageError(f"--light {options.light!r} names no light; choose from {', '.join(LIGHTS)}")
    wanted = SynthOptions(lights, options.draws, options.format, options.noise, options.seed, options.limit)
    checked = load_coco(options.data)
    for note in checked.notes:
        logger.warning("%s: %s", options.data, note)
    photos = len(checked.images)
    with claim_folder(options.out, "synth", options.overwrite) as claim:
        out = claim.folder
        origin = provenance(options.seed)
        total = min(photos, options.limit or photos) * options.draws * len(lights)
        with progress(options, total, "synth") as bar:
            summary = synthesise_set(options.data, options.images, out, wanted, origin, lambda name: bar.update())
        code = report_skips(out, summary.skipped, origin)
    if not options.quiet:
        rows = [(light, str(n), str(out / light / "labels.json")) for light, n in summary.written.items()]
        print(table(("light", "raws", "labels"), rows))
    return code
