"""Exit codes of the command line, which scripts rely on."""

DONE = 0
FAILED = 1
"""The command failed, or no input could be used."""
WRONG_USE = 2
DONE_WITH_SKIPS = 3
"""Done, but inputs were skipped."""
INTERRUPTED = 130

OF_VERDICT = {"ready": DONE, "problems": DONE_WITH_SKIPS, "unusable": FAILED}
"""Exit code of `doctor` for each verdict on a data set."""
