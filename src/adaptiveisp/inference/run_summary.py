"""The results of a run as a whole, read from its journal."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from adaptiveisp.inference.journal import Journal
from adaptiveisp.inference.records import RunRow, summary_row


class RunSummary:
    """The results of a batch, and the inputs that were skipped with the reason, read from its journal.

    Args:
        journal: the rows.

    Attributes:
        stopped: reason why the batch ended before its last input; "" if it did not.
        batch_files: names of the files about all inputs together.
    """

    def __init__(self, journal: Journal):
        self.journal = journal
        self.stopped = ""
        self.batch_files: list[str] = []

    @property
    def n_results(self) -> int:
        """Number of inputs that were used."""
        return self.journal.n_results

    @property
    def rows(self) -> Iterator[RunRow]:
        """Yields a line for each input that was used."""
        return (summary_row(row) for row in self.journal.results())

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """(input, reason) of the others."""
        return [(row["frame"], row["skipped"]) for row in self.journal.rows() if row["skipped"] is not None]

    @property
    def files(self) -> Iterator[str]:
        """Yields the names of all files written, relative to the output folder."""
        for row in self.journal.results():
            yield from row["files"]
        yield from self.batch_files

    @property
    def dropped_boxes(self) -> int:
        """Number of boxes of all images that were left out because they make no sense, see `detectors.answers`."""
        return sum(row.dropped_boxes for row in self.rows)

    def latency(self, latency_ms: float) -> dict[str, Any]:
        """How often a latency was kept by the clock, and which modules were dropped from how many images.

        Args:
            latency_ms: most milliseconds of policy and modules.
        """
        within, dropped = 0, Counter[str]()
        for row in self.rows:
            within += row.milliseconds <= latency_ms
            dropped.update(list(dict.fromkeys(row.dropped_modules)))
        share = within / max(1, self.n_results)
        return {"latency_ms": latency_ms, "share_within": share, "dropped_modules": dict(dropped)}
