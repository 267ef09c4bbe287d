"""`python -m adaptiveisp_runtime`."""

import sys

from adaptiveisp_runtime.command_line import main

sys.exit(main())
