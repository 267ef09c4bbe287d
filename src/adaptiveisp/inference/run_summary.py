"""The results of a run as a whole, read from its rows."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from adaptiveisp.detectors.answers import dropped_note
from adaptiveisp.errors import logger
from adaptiveisp.inference.journal import Journal
from adaptiveisp.inference.records import Row, RunRow, raw_facts_of, summary_row
from adaptiveisp.policies.latency import KEPT_SHARE
from adaptiveisp.raw.level_checks import RemarkWatch


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
        count = LatencyCount(latency_ms)
        for row in self.rows:
            count.add(row)
        return count.to_json()


class LatencyCount:
    """Counts how often a latency was kept by the clock, and which modules were dropped from how many images.

    Args:
        latency_ms: most milliseconds of policy and modules.
    """

    def __init__(self, latency_ms: float):
        self.latency_ms = latency_ms
        self._images, self._within, self._dropped = 0, 0, Counter[str]()

    @property
    def share(self) -> float:
        """Share of the images that kept the latency; 0 where there is none."""
        return self._within / max(1, self._images)

    def add(self, row: RunRow) -> None:
        """Counts an image."""
        self._images += 1
        self._within += row.milliseconds <= self.latency_ms
        self._dropped.update(list(dict.fromkeys(row.dropped_modules)))

    def to_json(self) -> dict[str, Any]:
        """The counts, for summary.json."""
        return {
            "latency_ms": self.latency_ms,
            "share_within": self.share,
            "dropped_modules": dict(self._dropped),
        }


class RunNotes:
    """What a run tells of its results together: doubts about raws, boxes without sense, whether a latency was kept.

    Args:
        detector: name of the detector.
        latency_ms: most milliseconds of policy and modules, or None.
    """

    def __init__(self, detector: str, latency_ms: float | None):
        self.detector = detector
        self.latency = None if latency_ms is None else LatencyCount(latency_ms)
        self._watch, self._dropped_boxes = RemarkWatch(), 0

    def add(self, row: Row, source: Any) -> None:
        """Adds the row of a result.

        Args:
            row: the row.
            source: the source of its frame, or None.
        """
        self._watch.add_facts(raw_facts_of(row, source))
        self._dropped_boxes += row["dropped_boxes"]
        if self.latency is not None:
            self.latency.add(summary_row(row))

    def tell(self) -> dict[str, Any]:
        """Logs what concerns several results, and returns the entries for summary.json."""
        if note := dropped_note(f"detector {self.detector}", self._dropped_boxes):
            logger.warning("%s", note)
        for remark, _ in self._watch.news():
            logger.warning("%s", remark.text)
        remarks = [
            {"kind": remark.kind, "text": remark.text, "n_files": count} for remark, count in self._watch.remarks()
        ]
        return {"remarks": remarks, "dropped_boxes": self._dropped_boxes, **self._latency()}

    def _latency(self) -> dict[str, Any]:
        if self.latency is None:
            return {}
        if self.latency.share < KEPT_SHARE:
            limit, kept, needed = self.latency.latency_ms, 100 * self.latency.share, 100 * KEPT_SHARE
            logger.warning("%g ms are kept for %.0f %% of the images, less than %.0f %%", limit, kept, needed)
        return {"latency": self.latency.to_json()}
