"""`python -m adaptiveisp`."""

import sys

from adaptiveisp.cli import main

if __name__ == "__main__":
    sys.exit(main())
