"""The error of this package."""


class RuntimeFault(Exception):
    """Something that the user can put right; the message is one line that names the file and the remedy."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind where it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
