"""An explanation as HTML for notebooks: the image with its boxes numbered, and a coloured table of the worths."""

from html import escape

import numpy as np

from adaptiveisp.inference.drawing import draw_detections
from adaptiveisp.inference.explanation import Explanation
from adaptiveisp.inference.pictures import page_image

MOST_BOXES = 10
"""Most boxes of an image in the table, the best by score."""
FULL_COLOUR = 0.5
"""A change of score by this much, or more, has the full colour."""
LONGEST_NAME = 40


def heat(worth: float) -> str:
    """The background of a cell as CSS: blue where the module helps, orange where it harms, by the size of the change.

    >>> heat(0.25), heat(-2.0), heat(0.0)
    ('rgba(0, 114, 178, 0.35)', 'rgba(213, 94, 0, 0.70)', 'transparent')
    """
    opacity = 0.7 * min(1.0, abs(worth) / FULL_COLOUR)
    if opacity < 0.01:
        return "transparent"
    return f"rgba({'0, 114, 178' if worth > 0 else '213, 94, 0'}, {opacity:.2f})"


def explanation_html(explanation: Explanation) -> str:
    """The explanation as HTML; names are text.

    Args:
        explanation: any explanation.
    """
    shown = explanation.drawn[:MOST_BOXES]
    names = [f"{number}: {explanation.boxes[i].name[:LONGEST_NAME]}" for number, i in enumerate(shown, 1)]
    height, width = explanation.full_size
    sides = np.array([width, height] * 2)
    pixels = np.array([explanation.image.shape[1], explanation.image.shape[0]] * 2)
    corners = np.array([explanation.boxes[i].box for i in shown]).reshape(-1, 4) / sides * pixels
    made = page_image(draw_detections(explanation.image, corners, names))
    picture = f'<img src="{made.src}" width="{made.width}" height="{made.height}" alt="">'
    head = "".join(
        f"<th>{escape(name)}<br>{100 * explanation.boxes[i].score:.0f}</th>"
        for name, i in zip(names, shown, strict=True)
    )
    rows = [f"<tr><th></th><th>without</th>{head}<th>appears</th></tr>"]
    for module in explanation.modules:
        worth, lost = explanation.worth(module), explanation.lost(module)
        cells = "".join(
            f'<td style="background: {heat(worth[i])}">{_signed(100 * worth[i])}{" lost" if i in lost else ""}</td>'
            for i in shown
        )
        new = ", ".join(f"{escape(box.name[:LONGEST_NAME])} {100 * box.score:.0f}" for box in module.appeared[:3])
        rows.append(f"<tr><td>{module.stage}</td><td>{escape(module.module)}</td>{cells}<td>{new or '–'}</td></tr>")
    note = (
        "Score of each box, in percent, less its score without the module"
        if explanation.modules
        else "There is no module that could be left out"
    )
    table = f"<table>{''.join(rows)}</table>" if explanation.modules else ""
    return (
        f'<div style="display: flex; flex-wrap: wrap; gap: 1em"><div>{picture}</div>'
        f"<div>{table}<p>{note}; {escape(explanation.name)}</p></div></div>"
    )


def _signed(value: float) -> str:
    """A whole number with its sign, a true minus."""
    return f"{round(value) + 0.0:+.0f}".replace("-", "\N{MINUS SIGN}")
