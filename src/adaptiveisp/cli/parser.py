"""The command line: parsing, errors and exit codes. Each command has a file of its own in this folder.

Imports here and at the top of a command's file are few and fast, so that help appears at once.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from adaptiveisp.cli import (
    bench,
    calibrate,
    card,
    demo,
    doctor,
    evaluate,
    export,
    export_tuning,
    import_file,
    run,
    stream,
    sweep,
    synth,
    train,
    view,
    weights,
)
from adaptiveisp.cli.exit_codes import DONE, FAILED, INTERRUPTED, WRONG_USE
from adaptiveisp.cli.terminal import finish_output, show_log, take_any_text, terminable
from adaptiveisp.errors import AdaptiveISPError, SilentError, UsageError, logger, one_line
from adaptiveisp.utils.torchrun import refuse_ranks

COMMANDS = (
    *(demo, view, run, stream, train, sweep, evaluate, export, export_tuning, synth, calibrate, doctor, bench),
    *(import_file, card, weights),
)
"""The modules of the commands, in the order of the help. Each has a function `add`, which adds its parser."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0 done, 1 failed, 2 wrong use, 3 done but inputs were skipped."""
    take_any_text()
    try:
        with terminable():
            return finish_output(_parse_and_run(argv), _fail)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)


def _parse_and_run(argv: Sequence[str] | None) -> int:
    try:
        options = build_parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed help, version or its error
        return int(stop.code or 0)
    except BrokenPipeError:  # the reader of help or version has closed the pipe
        return DONE
    except OSError as error:  # standard output is full
        return _fail(f"standard output: cannot be written ({error.strerror}); send it elsewhere", FAILED)
    show_log(getattr(options, "verbose", False))
    try:
        os.getcwd()
    except OSError:  # some libraries end the process in such a folder
        return _fail("the working folder does not exist any more; change to one that does", FAILED)
    for name in getattr(options, "without", ()):
        if getattr(options, name):
            logger.warning("--%s has no effect in this command", name)
    try:
        if not getattr(options, "shares_work", False):
            refuse_ranks(options.command_name)
        command: Callable[[argparse.Namespace], int] = options.command
        for text in getattr(options, "own_modules", ()):
            from adaptiveisp.isp.registry import register_named

            register_named(text)
        return command(options)
    except SystemExit as stop:  # most likely in a user's own detector
        return _fail(f"ended by code that it called (SystemExit: {stop.code})", FAILED)
    except BrokenPipeError:  # the reader of the output has closed the pipe before the end
        return FAILED
    except SilentError:  # with exit code 0, since torchrun ends the process that tells the error when another one fails
        return DONE
    except UsageError as error:
        return _fail(error, WRONG_USE)
    except AdaptiveISPError as error:
        return _fail(error, FAILED)
    except OSError as error:  # such as a path that is too long
        if error.filename is None:
            return _fail(f"cannot read or write ({error.strerror or error}); check disk and output", FAILED)
        return _fail(f"{error.filename}: {error.strerror or error}; check the path", FAILED)


def _fail(error: object, code: int) -> int:
    with contextlib.suppress(OSError):  # standard error is closed
        print(f"adaptiveisp: {one_line(str(error))}", file=sys.stderr)
    return code


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog="adaptiveisp",
        description="Renders raw images for a frozen object detector, each by its own pipeline of ISP modules.",
        epilog="Exit codes: 0 done; 1 failed; 2 wrong use; 3 done, but inputs were skipped.",
    )
    parser.add_argument("--version", action=_Version, help="show the version and exit")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=_Parser, dest="command_name"
    )
    for module in COMMANDS:
        module.add(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser with one-line errors that takes options by full names only: scripts must not depend on abbreviations."""

    def __init__(self, **keywords: Any):
        super().__init__(**{**keywords, "allow_abbrev": False})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Reports unknown arguments here, because the parent parser does not know the command."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def _print_message(self, message: str, file: Any = None) -> None:
        """Prints help, version or an error. Unlike argparse it raises an error if standard output is full."""
        if message:
            (file or sys.stderr).write(message)

    def error(self, message: str) -> NoReturn:
        """Prints the error with a pointer to the help instead of the whole usage, and exits."""
        command = self.prog.removeprefix("adaptiveisp").strip()
        where = f"{command}: " if command else ""
        self.exit(WRONG_USE, f"adaptiveisp: {where}{' '.join(message.split())}; see `{self.prog} --help`\n")


class _Version(argparse.Action):
    """Looks the version up only on request, since importlib.metadata takes longer than the rest of the parser."""

    def __init__(self, option_strings: Sequence[str], dest: str, **keywords: Any):
        super().__init__(option_strings, dest, nargs=0, **keywords)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from adaptiveisp.utils.provenance import package_version

        print(f"adaptiveisp {package_version()}")
        parser.exit()
