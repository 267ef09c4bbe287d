"""A file of JSON lines that another process still writes."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


class Tail:
    """The lines of a growing file; each update reads what is new.

    Args:
        most_bytes: bytes that are read of a file, from its beginning.

    Attributes:
        lines: the objects of the complete lines; damaged ones are left out.
        version: number that changes with the lines.
    """

    def __init__(self, most_bytes: int):
        self.most_bytes = most_bytes
        self.lines: list[dict[str, Any]] = []
        self.version = 0
        self._read = 0
        self._identity: tuple[int, int] | None = None

    def update(self, path: Path) -> bool:
        """Reads new lines, and returns whether there were any; a file that was cut or replaced is read anew."""
        try:
            with open(path, "rb") as file:
                return self._take(file)
        except FileNotFoundError:
            return self._begin(None)

    def _begin(self, identity: tuple[int, int] | None) -> bool:
        changed = bool(self.lines)
        self.lines, self._read, self._identity = [], 0, identity
        self.version += changed
        return changed

    def _take(self, file: Any) -> bool:
        status = os.fstat(file.fileno())
        identity = status.st_dev, status.st_ino
        changed = False
        if identity != self._identity or status.st_size < self._read:
            changed = self._begin(identity)
        file.seek(self._read)
        content = file.read(max(0, self.most_bytes - self._read))
        whole = content[: content.rfind(b"\n") + 1]  # the last line may be half written
        self._read += len(whole)
        for line in whole.splitlines():
            with suppress(ValueError, RecursionError):
                value = json.loads(line)
                if isinstance(value, dict):
                    self.lines.append(value)
                    changed = True
        self.version += changed
        return changed
