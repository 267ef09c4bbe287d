"""Every error a user can meet, each a one-line message that names the input and the remedy."""

import logging

logger = logging.getLogger("adaptiveisp")


class AdaptiveISPError(Exception):
    """Base of all errors this package raises on purpose; the command line prints it without a traceback."""


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


def skip_reason(name: str, error: Exception) -> str:
    """Why an input of a batch is skipped, in one line; a surprise is marked as one and logged with its traceback."""
    if isinstance(error, AdaptiveISPError):
        return str(error)
    logger.debug("%s: unexpected error", name, exc_info=error)
    first = next(iter(str(error).splitlines()), "")
    return f"{name}: unexpected {type(error).__name__}: {first}; replace the file, or report this with the output of -v"
