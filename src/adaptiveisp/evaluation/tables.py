"""Numbers and tables for people: points, true minus signs, columns aligned with spaces."""

from collections.abc import Sequence

from adaptiveisp.errors import one_line
from adaptiveisp.evaluation.policy_scores import PolicyScore
from adaptiveisp.evaluation.report import BEST_STATIC_CHOICE, Report
from adaptiveisp.evaluation.seed_groups import Difference

MINUS, DASH, PLUS_MINUS = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{PLUS-MINUS SIGN}"
LOSS_DIGITS = 4
LONGEST_CELL = 200
"""Characters of a cell; a name from a file can be of any length."""


def points(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """A value in 0..1 as points for a reader, with a true minus sign.

    >>> points(0.2345), points(None) == DASH, points(0.012, sign=True)
    ('23.4', True, '+1.2')
    """
    return number(None if value is None else 100 * value, digits, sign)


def number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """A number for a reader; a dash for None.

    >>> number(12.345, 2), number(-0.001) == number(0.0)
    ('12.35', True)
    """
    if value is None:
        return DASH
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return f"{round(value, digits) + 0.0:{'+' if sign else ''}.{digits}f}".replace("-", MINUS)


def percent(share: float | None) -> str:
    """A share in 0..1 in percent for a reader.

    >>> percent(0.125), percent(None) == DASH
    ('12.5 %', True)
    """
    return DASH if share is None else f"{number(100 * share)} %"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned with spaces; names from files are made printable."""
    rows = [[one_line(cell, LONGEST_CELL) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)


SCORE_COLUMNS = (
    *("policy", "kind", "detector", "AP50", "sd", "AP", "AP75", "images", "modules", "ms", "cost ms"),
    *("loss", "worst 5 %", "worse than raw", "than auto-exp."),
)
DIFFERENCE_COLUMNS = ("difference", "detector", "AP50", "95 % interval")


def score_tables(report: Report) -> str:
    """Scores of every policy, group and detector, paired differences, those to the best static policy, a caution."""
    rows = []
    for detector in report.detectors:
        for name, score in report.units(detector).items():
            group = report.groups.get(name, {}).get(detector)
            rows.append(_score_row(name, detector, score, group.ap50_sd if group else None))
            for member in group.members if group else ():
                rows.append(_score_row(f"  {member}", detector, report.policies[member][detector], None))
    text = table(SCORE_COLUMNS, rows)
    if report.differences:
        text += "\n\n" + table(DIFFERENCE_COLUMNS, [_difference_row(d) for d in report.differences])
    for detector, best in report.best_static.items():
        if best.differences:
            text += f"\n\nBest static policy with {detector}: {best.name}, AP50 {points(best.ap50)}; chosen by the "
            text += f"{BEST_STATIC_CHOICE}.\n"
            text += table(DIFFERENCE_COLUMNS, [_difference_row(d) for d in best.differences])
    return f"{text}\n\n{report.caution}" if report.caution else text


def _score_row(name: str, detector: str, score: PolicyScore, sd: float | None) -> tuple[str, ...]:
    return (
        name,
        "static" if score.static else "adaptive",
        detector,
        points(score.ap50),
        "" if sd is None else f"{PLUS_MINUS}{points(sd)}",
        points(score.ap),
        points(score.ap75),
        str(score.n_images),
        number(score.modules_per_image),
        number(score.ms_per_image),
        number(score.cost_ms),
        number(score.loss_mean, LOSS_DIGITS),
        number(score.loss_worst5, LOSS_DIGITS),
        percent(score.worse_than_raw),
        percent(score.worse_than_auto_exposure),
    )


def _difference_row(d: Difference) -> tuple[str, ...]:
    low, high = points(d.interval.low, sign=True), points(d.interval.high, sign=True)
    return f"{d.a} - {d.b}", d.detector, points(d.interval.mean, sign=True), f"{low} to {high}"
