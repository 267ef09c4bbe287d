"""The command `weights`: lists the weights of detectors, or downloads them."""

import argparse
from pathlib import Path
from typing import Any

from adaptiveisp.cli.exit_codes import DONE


def add(commands: Any) -> None:
    """Adds the command and its two actions to the parser."""
    parser = commands.add_parser(
        "weights", help="list or download detector weights", description="Lists or downloads detector weights."
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True, parser_class=type(parser))
    listing = actions.add_parser("list", help="list all weights, and whether they are installed")
    listing.set_defaults(command=list_installed)
    get = actions.add_parser("get", help="download weights, check their hash, and keep them in the cache folder")
    get.add_argument("name", metavar="NAME", help="a name of `weights list`")
    get.add_argument("--from", dest="source", type=Path, metavar="FILE", help="take the weights from this file")
    get.set_defaults(command=get_one)


def list_installed(options: argparse.Namespace) -> int:
    """Prints a table of the weights and which of them are installed, and the detectors of installed packages."""
    from adaptiveisp.detectors.weights import ENTRY_POINTS, list_weights
    from adaptiveisp.evaluation.tables import table
    from adaptiveisp.utils.registry import declared_names

    rows = [
        (r.name, "yes" if r.installed else "no", f"{r.size / 1e6:.1f} MB", r.licence, r.source) for r in list_weights()
    ]
    print(table(("name", "installed", "size", "licence", "source"), rows))
    if declared := declared_names(ENTRY_POINTS):
        print(f"detectors of installed packages, which need no weights from here: {', '.join(declared)}")
    return DONE


def get_one(options: argparse.Namespace) -> int:
    """Downloads weights and prints their path."""
    from adaptiveisp.detectors.weights import get_weights

    print(get_weights(options.name, options.source))
    return DONE
