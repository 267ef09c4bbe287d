"""A file of JSON lines that another process still writes."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


class Tail:
    """The lines of a growing file; each update reads what is new.

    Args:
        most_bytes: bytes that are read of a file, from its beginning; with `keep` at a time, from its end.
        keep: number of the last lines that are kept; None keeps all.

    Attributes:
        lines: the objects of the complete lines; damaged ones are left out.
        version: number that changes with the lines.
        count: number of lines that were read.
    """

    def __init__(self, most_bytes: int, keep: int | None = None):
        self.most_bytes, self.keep = most_bytes, keep
        self.count = 0
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
        self.lines, self._read, self._identity, self.count = [], 0, identity, 0
        self.version += changed
        return changed

    def _take(self, file: Any) -> bool:
        status = os.fstat(file.fileno())
        identity = status.st_dev, status.st_ino
        changed = False
        if identity != self._identity or status.st_size < self._read:
            changed = self._begin(identity)
        room = self.most_bytes - self._read
        if self.keep is not None:
            room = self.most_bytes
            if status.st_size - self._read > room:  # far behind: go on with the last part, after a whole line
                file.seek(status.st_size - room)
                self._read = status.st_size - room + len(file.readline(room))
        file.seek(self._read)
        content = file.read(max(0, room))
        whole = content[: content.rfind(b"\n") + 1]  # the last line may be half written
        self._read += len(whole)
        for line in whole.splitlines():
            with suppress(ValueError, RecursionError):
                value = json.loads(line)
                if isinstance(value, dict):
                    self.lines.append(value)
                    self.count += 1
                    changed = True
        if self.keep is not None:
            del self.lines[: -self.keep]
        self.version += changed
        return changed
