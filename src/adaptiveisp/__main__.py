"""`python -m adaptiveisp`."""

import os
import sys

from adaptiveisp.cli.parser import main


def leave(code: int) -> None:
    """Ends the process.

    Among the ranks of `torchrun` it ends at once: while an interpreter shuts down, threads of gloo were seen to abort a
    rank whose work was done, by which `torchrun` fails.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    leave(main())
