"""The command `card`: writes the page that describes a policy."""

import argparse
from pathlib import Path
from typing import Any

from adaptiveisp.cli.exit_codes import DONE
from adaptiveisp.cli.options import add_command
from adaptiveisp.errors import UsageError


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "card",
        "write the page that describes a policy",
        "Prints or writes a policy's card in Markdown: what it is, how it was learned and what was measured, from its "
        "file, its run folder and reports of eval.",
    )
    text = "a shipped policy, the folder of a training run or of save_pretrained, or a policy file"
    parser.add_argument("policy", metavar="POLICY", help=text)
    text = "folders or report.json files of eval, whose scores the card shows"
    parser.add_argument("--report", nargs="+", type=Path, default=[], metavar="REPORT", help=text)
    text = "the policy's name in the reports, or that of its group of seeds (default: the name of its folder or file)"
    parser.add_argument("--name", default="", metavar="NAME", help=text)
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="file to write (default: standard output)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(command=card)


def card(options: argparse.Namespace) -> int:
    """Prints or writes a policy's card."""
    from adaptiveisp.training.card import policy_card
    from adaptiveisp.utils.files import atomic_path

    if options.out is not None and options.out.exists() and not options.overwrite:
        raise UsageError(f"{options.out}: exists already; choose another name, or add --overwrite")
    text = policy_card(options.policy, options.report, options.name)
    if options.out is None:
        print(text, end="")
        return DONE
    with atomic_path(options.out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(options.out)
    return DONE
