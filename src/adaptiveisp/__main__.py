"""`python -m adaptiveisp`."""

import sys

from adaptiveisp.cli.parser import main

if __name__ == "__main__":
    sys.exit(main())
