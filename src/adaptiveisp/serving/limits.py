"""Bounds of the viewer: what a request may hold, how long it may take, and how much is kept."""

from typing import Final

MOST_BODY: Final = 1 << 20
"""Bytes of a JSON body."""
MOST_UPLOAD: Final = 256 << 20
"""Bytes of an uploaded raw."""
MOST_UPLOADS: Final = 24
"""Uploaded raws that are kept at a time."""
MOST_UPLOADED: Final = 1 << 30
"""Bytes of all uploaded raws that are kept."""
MOST_PIXELS: Final = 64_000_000
"""Pixels that the header of an uploaded raw may state."""
MOST_NAME: Final = 200
"""Characters of the name of an uploaded raw."""
BODY_SECONDS: Final = 60.0
"""Longest time in which a request must send its body."""
WORK_SECONDS: Final = 60.0
"""Longest time for which a request waits until the computations before it are done."""
MOST_WAITING: Final = 16
"""Requests that may wait for computations."""
MOST_CONNECTIONS: Final = 64
"""Connections at a time."""
MOST_IMAGES: Final = 4
"""Developed images that are kept."""
STAGE_BYTES: Final = 256 << 20
"""Bytes of images after stages that are kept."""
MOST_LISTED: Final = 5000
"""Images that the page lists."""
MOST_LINES: Final = 200_000
"""Lines of a log or report that are read."""
MOST_LINE_BYTES: Final = 64 << 20
"""Bytes of a log or report that are read at a time."""
