"""Makes the memory allocator keep freed memory for the next batch.

By default glibc returns large blocks to the system as soon as they are freed. The next batch then gets fresh pages,
each of which the system has to clear: in training about fifty thousand per iteration (docs/performance.md).
"""

import ctypes
import os
import sys
from pathlib import Path

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Parameters of `mallopt` in glibc's malloc.h."""

MEMORY_FACTS = Path("/proc/meminfo")
"""File in which Linux states how much memory is free."""

KEPT_BYTES = 1 << 30
"""Most free bytes at the end of the heap that stay with the process."""
GROWTH_BYTES = 64 << 20
"""Least bytes by which the heap grows at a time."""


def available_bytes() -> int | None:
    """Bytes of memory that can be used without paging; None where the system does not state it."""
    try:
        for line in MEMORY_FACTS.read_text(encoding="ascii").splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return 1024 * int(rest.split()[0])
    except (OSError, ValueError, IndexError):
        pass
    return None


def keep_freed_memory() -> bool:
    """Makes the process keep freed memory, up to `KEPT_BYTES`, and take large blocks from it.

    This works with glibc only, and not where the environment has its own settings (MALLOC_…, GLIBC_TUNABLES).

    Returns:
        Whether the settings were changed.
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
