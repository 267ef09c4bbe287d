"""How the process keeps memory that it has freed.

By default glibc gives large blocks back to the system as soon as they are free. The next batch then gets fresh pages,
each of which the system has to clear: in training some fifty thousand an iteration (docs/performance.md).
"""

import ctypes
import os
import sys
from pathlib import Path

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Numbers of `mallopt` in glibc's malloc.h."""

MEMORY_FACTS = Path("/proc/meminfo")
"""Where Linux says how much memory is free."""

KEPT_BYTES = 1 << 30
"""So much free memory at the end of the heap stays with the process."""
GROWTH_BYTES = 64 << 20
"""The heap grows by at least so much at a time."""


def available_bytes() -> int | None:
    """Memory that new work can take without paging, in bytes; None where the system does not say."""
    try:
        for line in MEMORY_FACTS.read_text(encoding="ascii").splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return 1024 * int(rest.split()[0])
    except (OSError, ValueError, IndexError):
        pass
    return None


def keep_freed_memory() -> bool:
    """Makes the process keep what it frees, up to `KEPT_BYTES`, and take large blocks from there; whether it could.

    Only glibc can, and what the environment sets itself (MALLOC_…, GLIBC_TUNABLES) goes before it.
    """
    own = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if own or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    wanted = ((TRIM_THRESHOLD, KEPT_BYTES), (TOP_PAD, GROWTH_BYTES), (MMAP_MAX, 0))
    return all(bool(mallopt(number, value)) for number, value in wanted)
