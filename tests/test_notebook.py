"""The notebook of examples: it holds no outputs, and its cells run in order in a fresh interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

NOTEBOOK = REPOSITORY / "examples" / "quickstart.ipynb"
RUNNER = """
import ast, json, sys
names = {"__name__": "__main__"}
for number, source in enumerate(json.loads(sys.stdin.read())):
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, f"cell {number}", "exec"), names)
    value = None if last is None else eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
    for kind in ("_repr_html_", "_repr_png_"):
        if value is not None and hasattr(value, kind):
            made = getattr(value, kind)()
            text = made if isinstance(made, str) else ""
            print("SHOWN", json.dumps({"type": type(value).__name__, "kind": kind, "size": len(made), "text": text}))
            break
"""
"""Runs the cells as a notebook does: the value of a cell's last expression is shown in its richest form."""


def cells() -> list[dict[str, Any]]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_the_notebook_holds_no_outputs_and_no_pictures() -> None:
    assert NOTEBOOK.stat().st_size < 10_000 and "image/" not in NOTEBOOK.read_text(encoding="utf-8")
    for cell in cells():
        assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None)
    assert len({cell["id"] for cell in cells()}) == len(cells())


@pytest.mark.long
def test_the_notebook_runs(tmp_path: Path, tiny_weights: Path) -> None:
    pytest.importorskip("skimage")
    code = ["".join(cell["source"]) for cell in cells() if cell["cell_type"] == "code"]
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(code),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    shown = [json.loads(line.removeprefix("SHOWN ")) for line in lines if line.startswith("SHOWN ")]
    kinds = [one["type"] for one in shown]
    assert kinds == ["Report", "PhotoGrid", "Result", "Image", "Explanation", "Result"]
    by_kind = dict(zip(kinds, shown, strict=True))
    assert "coco-adaptive" in by_kind["Report"]["text"] and "clean photo" in by_kind["PhotoGrid"]["text"]
    assert "white_balance" in by_kind["Explanation"]["text"] and "lost" in by_kind["Explanation"]["text"]
    assert "ev 5 stops" in by_kind["Result"]["text"], "the last one is one's own pipeline"
    assert all(one["size"] < 5_000_000 for one in shown) and by_kind["Image"]["size"] > 10_000
    found = [line for line in lines if line.startswith("coco-adaptive") and "astronaut-dark.dng" in line]
    assert len(found) == 1 and "person" in found[0]
