"""The errors that the package raises on purpose: each has a message of one line that names the input and the remedy."""

import logging
import re
from collections.abc import Iterable
from typing import Any

LONGEST_MESSAGE = 1000
"""Most characters of a message: a value from a file can be of any length, and the remedy at the end must be shown."""
LONGEST_VALUE = 80
"""Most characters of a value inside a message."""
MOST_NAMED = 5
"""Most names that a message lists; it counts the others."""
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_USER = re.compile(r"(?<=://)[^/\s@?#'\"]+@")
_SECRET = re.compile(
    r"([?&;](?:[\w.-]*(?:token|secret|password|passwd|signature|credential|key|keyid)|auth|sig|pwd|expires"
    r"|x-(?:amz|goog)-[\w-]+)=)[^&;\s'\"#]+",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """A text whose URLs have an ellipsis instead of a user with password, and of tokens and signatures in the query.

    >>> without_secrets("https://me:pass@host/a.dng?id=7&token=abc")
    'https://…@host/a.dng?id=7&token=…'
    """
    return _SECRET.sub(r"\1…", _USER.sub("…@", text)) if "://" in text else text


def one_line(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """A text as one printable line of limited length.

    Line breaks and tabs become spaces, and secrets in URLs an ellipsis. Control characters such as terminal
    escapes, marks that change the direction of writing, and bytes of a file name that are not UTF-8 are replaced by
    their escapes.

    >>> one_line("a\\x1b[31mb\\nc")
    'a\\\\x1b[31mb c'
    >>> len(one_line("x" * 5000))
    1000

    Args:
        text: any text, perhaps from a file.
        longest: most characters; of a longer text the beginning and the end are kept, with an ellipsis between.
    """
    if len(text) > 4 * longest:
        text = text[: 2 * longest] + text[-2 * longest :]
    text = without_secrets(text)
    text = _UNPRINTABLE.sub(_escaped, " ".join(re.split(r"[\r\n\t\v\f\u2028\u2029]+", text)))
    if len(text) <= longest:
        return text
    tail = (longest - 3) // 3
    return f"{text[: longest - 3 - tail]} … {text[len(text) - tail :]}"


def shown(value: Any, longest: int = LONGEST_VALUE) -> str:
    """A value from a file for a message: its `repr` as one short printable line.

    >>> shown({"a": 1}), len(shown("x" * 5000))
    ("{'a': 1}", 80)
    """
    return one_line(repr(value), longest)


def first_few(names: Iterable[Any], most: int = MOST_NAMED, longest: int = LONGEST_VALUE) -> str:
    """Names for a message: the first of them, and the number of the others.

    >>> first_few(["cat", "dog"]), first_few("abcdefgh")
    ('cat, dog', 'a, b, c, d, e and 3 more')

    Args:
        names: the names, perhaps from a file.
        most: most names that are listed.
        longest: most characters of each name.
    """
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(one_line(str(name), longest) for name in found[:most]) + more


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # the surrogate by which Python represents a byte of a name that is not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class _OneLine(logging.Filter):
    """Makes each log message of the package one printable line, since messages can quote untrusted files."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = one_line(record.getMessage()), ()
        return True


logger = logging.getLogger("adaptiveisp")
logger.addFilter(_OneLine())


class AdaptiveISPError(Exception):
    """Base of all errors this package raises on purpose; the command line prints it without a traceback.

    Args:
        message: names the input and the remedy; kept as `one_line` makes it.
        others: further values that a subclass keeps in addition to the message.
    """

    def __init__(self, message: str = "", *others: Any):
        super().__init__(one_line(str(message)), *others)


class RawFileError(AdaptiveISPError):
    """A raw file is missing, unreadable, damaged, or needs facts (size, pattern) that it does not carry."""


class DataError(AdaptiveISPError):
    """A data set or its labels are missing, malformed or inconsistent."""


class PipelineError(AdaptiveISPError):
    """A pipeline names an unknown module, or a parameter is missing, unknown, not finite or out of range."""


class WeightsError(AdaptiveISPError):
    """Weights are missing, have the wrong hash or do not fit the network."""


class DetectorError(AdaptiveISPError):
    """A detector is unknown or cannot be built from what was given."""


class PolicyError(AdaptiveISPError):
    """A policy is unknown, or cannot serve the given input."""


class OutputError(AdaptiveISPError):
    """An output folder exists already, is not writable, or the disk is full."""


class OutputNameError(OutputError):
    """The name of an output, which mirrors that of an input, is longer than the file system takes."""


class UsageError(AdaptiveISPError):
    """The request contradicts itself or asks for something that does not exist (exit code 2)."""


class SilentError(AdaptiveISPError):
    """This process ends because of an error that another process of the same command tells the user."""


def unreadable(name: object, error: OSError) -> str:
    """The message about a file that the operating system cannot read.

    >>> unreadable("x.dng", PermissionError(13, "Permission denied"))
    'x.dng: cannot be read (Permission denied); check its name and permissions'

    Args:
        name: the file.
        error: error of the operating system.
    """
    return f"{name}: cannot be read ({error.strerror or error}); check its name and permissions"


def skip_reason(name: str, error: Exception) -> str:
    """The reason why an input of a batch is skipped, in one line.

    An error that is not the package's own is marked as unexpected and logged with its traceback.

    Args:
        name: the input.
        error: the error that it caused.
    """
    if isinstance(error, AdaptiveISPError):
        return str(error)
    logger.debug("%s: unexpected error", name, exc_info=error)
    first = next(iter(str(error).splitlines()), "")
    return f"{name}: unexpected {type(error).__name__}: {first}; replace the file, or report this with the output of -v"
