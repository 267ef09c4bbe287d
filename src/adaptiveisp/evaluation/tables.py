"""Numbers and tables as text: points with a true minus sign, aligned columns, Markdown, CSV and HTML."""

import csv
import html
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

from adaptiveisp.errors import one_line
from adaptiveisp.evaluation.bootstrap import Interval
from adaptiveisp.evaluation.policy_scores import PolicyScore
from adaptiveisp.evaluation.report import BEST_STATIC_CHOICE, Report
from adaptiveisp.evaluation.seed_groups import Difference
from adaptiveisp.isp.costs import PAPER

MINUS, DASH, PLUS_MINUS = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{PLUS-MINUS SIGN}"
LOSS_DIGITS = 4
COST = "cost ms"
"""Heading of the cost by a table; tables for readers add whether that is the paper's, see `cost_title`."""
LONGEST_CELL = 200
"""Most characters of a cell, since a name from a file can be of any length."""


def points(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """A value in 0..1 as the text of its points, with a true minus sign.

    >>> points(0.2345), points(None) == DASH, points(0.012, sign=True)
    ('23.4', True, '+1.2')
    """
    return number(None if value is None else 100 * value, digits, sign)


def number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """The text of a number, with a true minus sign; a dash for None.

    >>> number(12.345, 2), number(-0.001) == number(0.0)
    ('12.35', True)
    """
    if value is None:
        return DASH
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return f"{round(value, digits) + 0.0:{'+' if sign else ''}.{digits}f}".replace("-", MINUS)


def percent(share: float | None) -> str:
    """The text of a share in 0..1 in percent; a dash for None.

    >>> percent(0.125), percent(None) == DASH
    ('12.5 %', True)
    """
    return DASH if share is None else f"{number(100 * share)} %"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose columns are aligned with spaces; names from files are made printable."""
    rows = [[one_line(cell, LONGEST_CELL) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)


class ScoreRow(NamedTuple):
    """A row of the table of scores.

    Attributes:
        name: name of a policy or a group; those of the runs of a group are indented.
        detector: name of the detector.
        score: the scores; for a group the means.
        sd: standard deviation of AP50 over the runs of a group in 0..1; None for a policy.
        of_sets: AP50 (0..1) on each of several data sets; empty for a report on one.
    """

    name: str
    detector: str
    score: PolicyScore
    sd: float | None
    of_sets: Sequence[float | None] = ()


class Column(NamedTuple):
    """A column of the table of scores.

    Attributes:
        title: heading of the column.
        meaning: explanation of the title; "" where it needs none.
        cell: rounded text of a row, for tables.
        value: unrounded value of a row in 0..1, milliseconds or counts, for CSV; None where it is not known.
        csv_only: whether the tables leave it out.
    """

    title: str
    meaning: str
    cell: Callable[[ScoreRow], str]
    value: Callable[[ScoreRow], str | float | None]
    csv_only: bool = False


SCORE_COLUMNS = (
    Column("policy", "", lambda row: row.name, lambda row: row.name.strip()),
    Column(
        "kind",
        "static: a heuristic, or one pipeline for all images; adaptive: chosen for each image",
        lambda row: "static" if row.score.static else "adaptive",
        lambda row: "static" if row.score.static else "adaptive",
    ),
    Column("detector", "", lambda row: row.detector, lambda row: row.detector),
    Column(
        "AP50",
        "average precision at IoU 0.5, in points (x100)",
        lambda row: points(row.score.ap50),
        lambda row: row.score.ap50,
    ),
    Column(
        "sd",
        "standard deviation of AP50 over the runs of a group",
        lambda row: "" if row.sd is None else f"{PLUS_MINUS}{points(row.sd)}",
        lambda row: row.sd,
    ),
    Column("AP", "COCO's mean over IoU 0.50 to 0.95", lambda row: points(row.score.ap), lambda row: row.score.ap),
    Column("AP75", "at IoU 0.75", lambda row: points(row.score.ap75), lambda row: row.score.ap75),
    Column(
        "images",
        "scored images, each draw of a photo counted",
        lambda row: str(row.score.n_images),
        lambda row: row.score.n_images,
    ),
    Column(
        "modules",
        "mean number of modules that ran",
        lambda row: number(row.score.modules_per_image),
        lambda row: row.score.modules_per_image,
    ),
    Column(
        "ms",
        "mean measured milliseconds of policy and modules per image",
        lambda row: number(row.score.ms_per_image),
        lambda row: row.score.ms_per_image,
        csv_only=True,
    ),
    Column(
        "clock ms",
        "median milliseconds of policy and modules per image, measured on this machine",
        lambda row: number(row.score.clock_ms),
        lambda row: row.score.clock_ms,
    ),
    Column(
        "table ms",
        "mean milliseconds of policy and modules per image, by the table of modules measured on this machine",
        lambda row: number(row.score.table_ms),
        lambda row: row.score.table_ms,
    ),
    Column(
        "within latency",
        "share of images whose measured time of policy and modules is at most the latency",
        lambda row: percent(row.score.within_latency),
        lambda row: row.score.within_latency,
    ),
    Column(
        COST,
        "milliseconds of the modules by the cost table",
        lambda row: number(row.score.cost_ms),
        lambda row: row.score.cost_ms,
    ),
    Column(
        "loss",
        "mean detection loss, lower is better",
        lambda row: number(row.score.loss_mean, LOSS_DIGITS),
        lambda row: row.score.loss_mean,
    ),
    Column(
        "worst 5 %",
        "mean of the highest 5 % of the losses",
        lambda row: number(row.score.loss_worst5, LOSS_DIGITS),
        lambda row: row.score.loss_worst5,
    ),
    Column(
        "worse than raw",
        "share of images whose loss is higher than that of the developed raw",
        lambda row: percent(row.score.worse_than_raw),
        lambda row: row.score.worse_than_raw,
    ),
    Column(
        "worse than auto-exposure",
        "the same against auto-exposure",
        lambda row: percent(row.score.worse_than_auto_exposure),
        lambda row: row.score.worse_than_auto_exposure,
    ),
)
DIFFERENCE_COLUMNS = ("difference", "detector", "AP50", "95 % interval")
MEAN_OF_SETS = "mean of sets"
"""Title of the column of a mean over several data sets."""


def _set_column(name: str, place: int) -> Column:
    """The column of AP50 on one of several data sets, the one at a place in their order."""
    return Column(f"AP50 {name}", "", lambda row: points(row.of_sets[place]), lambda row: row.of_sets[place])


def score_columns(report: Report) -> tuple[Column, ...]:
    """All columns of a report's table of scores; with several data sets there is one of AP50 for each of them."""
    if not report.sets:
        return SCORE_COLUMNS
    at = next(index for index, column in enumerate(SCORE_COLUMNS) if column.title == "AP50")
    meaning = "mean of the sets' AP50, which is in points (x100); the other scores are means of the sets too"
    mean = SCORE_COLUMNS[at]._replace(title=MEAN_OF_SETS, meaning=meaning)
    own = (_set_column(name, place) for place, name in enumerate(report.sets))
    return (*SCORE_COLUMNS[:at], *own, mean, *SCORE_COLUMNS[at + 1 :])


def score_rows(report: Report) -> list[ScoreRow]:
    """A row for each policy or group and detector; the runs of a group follow it."""
    rows = []
    for detector in report.detectors:
        for name, score in report.units(detector).items():
            group = report.groups.get(name, {}).get(detector)
            sd, of_sets = group.ap50_sd if group else None, report.ap50_of_sets(name, detector)
            rows.append(ScoreRow(name, detector, score, sd, of_sets))
            for member in group.members if group else ():
                own = report.policies[member][detector]
                rows.append(ScoreRow(f"  {member}", detector, own, None, report.ap50_of_sets(member, detector)))
    return rows


def cost_title(report: Report) -> str:
    """The heading of the cost, with the name of the cost table if that is the paper's."""
    return f"{COST} (paper)" if report.provenance.get("cost_table") == PAPER else COST


def filled_columns(report: Report, rows: Sequence[ScoreRow]) -> list[Column]:
    """The columns of a report's tables for readers that are not empty in all rows."""
    filled = [column for column in score_columns(report) if any(column.cell(row) not in ("", DASH) for row in rows)]
    shown = [column for column in filled if not column.csv_only]
    return [column._replace(title=cost_title(report)) if column.title == COST else column for column in shown]


def legend(columns: Sequence[Column]) -> str:
    """One line that explains the titles of the columns."""
    return "; ".join(f"{column.title}: {column.meaning}" for column in columns if column.meaning)


def score_tables(report: Report) -> str:
    """The scores with a legend, the paired differences, those to the best static policy, and a caution, as text."""
    rows = score_rows(report)
    columns = filled_columns(report, rows)
    parts = [table([c.title for c in columns], [[c.cell(row) for c in columns] for row in rows]), legend(columns)]
    if report.differences:
        parts.append(table(_difference_columns(report), [_difference_row(report, d) for d in report.differences]))
    for detector, best in report.best_static.items():
        if best.differences:
            text = f"Best static policy with {detector}: {best.name}, AP50 {points(best.ap50)}; chosen by the "
            rows_of_best = [_difference_row(report, d) for d in best.differences]
            differences = table(_difference_columns(report), rows_of_best)
            parts.append(f"{text}{BEST_STATIC_CHOICE}.\n{differences}")
    if report.upper_bounds:
        parts.append(f"{', '.join(report.upper_bounds)}: an upper bound that knows the labels, not a policy")
    return "\n\n".join([*parts, report.caution] if report.caution else parts)


def markdown_tables(report: Report) -> str:
    """The scores with a legend and the paired differences as Markdown."""
    rows = score_rows(report)
    columns = filled_columns(report, rows)
    scores = markdown([c.title for c in columns], [[c.cell(row).strip() for c in columns] for row in rows])
    parts = [scores, legend(columns)]
    if report.differences:
        parts.append(markdown(_difference_columns(report), [_difference_row(report, d) for d in report.differences]))
    return "\n\n".join(parts) + "\n"


def scores_csv(report: Report) -> str:
    """The scores as CSV with all columns and unrounded values; average precision and shares in 0..1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = score_columns(report)
    writer.writerow([column.title for column in columns])
    for row in score_rows(report):
        writer.writerow(["" if (value := column.value(row)) is None else value for column in columns])
    return text.getvalue()


def scores_html(report: Report) -> str:
    """The scores with a legend as an HTML table, which notebooks show."""
    rows = score_rows(report)
    columns = filled_columns(report, rows)
    lines = ["".join(f"<th>{html.escape(column.title)}</th>" for column in columns)]
    lines += ["".join(f"<td>{html.escape(one_line(c.cell(row), LONGEST_CELL))}</td>" for c in columns) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table>{body}</table><p><small>{html.escape(legend(columns))}</small></p>"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; names from files are made printable, and their bars are escaped."""
    lines = [[one_line(cell, LONGEST_CELL).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _difference_columns(report: Report) -> tuple[str, ...]:
    """The titles of the table of differences, with a column for each of several data sets."""
    if not report.sets:
        return DIFFERENCE_COLUMNS
    names = (f"{one_line(name, LONGEST_CELL)} (interval)" for name in report.sets)
    return *DIFFERENCE_COLUMNS[:2], *names, MEAN_OF_SETS, DIFFERENCE_COLUMNS[3]


def _difference_row(report: Report, d: Difference) -> tuple[str, ...]:
    of_sets = (interval_text(interval) for interval in report.intervals_of_sets(d))
    low, high = points(d.interval.low, sign=True), points(d.interval.high, sign=True)
    return f"{d.a} - {d.b}", d.detector, *of_sets, points(d.interval.mean, sign=True), f"{low} to {high}"


def interval_text(interval: Interval | None) -> str:
    """A difference with its interval in points; a dash for None.

    >>> interval_text(Interval(0.02, 0.005, 0.031, 0.95, 200))
    '+2.0 (+0.5 to +3.1)'
    """
    if interval is None:
        return DASH
    mean, low, high = (points(value, sign=True) for value in (interval.mean, interval.low, interval.high))
    return f"{mean} ({low} to {high})"
