"""Makes docs/modules.md from the modules' declarations: `python -m adaptiveisp.isp.docs > docs/modules.md`."""

from adaptiveisp.isp.registry import EXTENDED, HELPERS, PAPER, IspModule

EFFECTS = """# Modules

This page is made by `python -m adaptiveisp.isp.docs > docs/modules.md` from the declarations in
`src/adaptiveisp/isp/modules`, and a test keeps it up to date.

## What each module does to a picture

| module | effect |
|---|---|
"""

PARAMETERS = """
## Parameters, ranges and costs

A pipeline file names modules and parameters as this table does. It uses the set `extended` unless it says
`"module_set": "wide"` (the paper's ten modules with the ranges of `extended`), `"paper"` or `"released"` (the paper's
ranges; `released` also turns grey red under saturation, as the released code does). Costs are those of the paper's
table, in milliseconds; modules that it lacks have our estimate on the same scale ([performance](performance.md)).
`adaptiveisp bench --write-costs FILE` measures all of them on your machine.

| module | parameter | range in `extended` | range in `paper` | neutral | cost ms | source |
|---|---|---|---|---|---:|---|
"""


def module_table() -> str:
    """The text of docs/modules.md."""
    paper = {module.name: module for module in PAPER}
    modules = (*EXTENDED, *HELPERS)
    effects = [f"| {module.name} | {module.effect} |" for module in modules]
    rows = [row for module in modules for row in _rows(module, paper.get(module.name))]
    return EFFECTS + "\n".join(effects) + "\n" + PARAMETERS + "\n".join(rows) + "\n"


def _rows(module: IspModule, paper: IspModule | None) -> list[str]:
    if not module.params:
        return [f"| {module.name} | none | | | | {module.cost_ms:g} | {module.source} |"]
    rows = []
    for i, param in enumerate(module.params):
        narrow = paper.params[i].range_text if paper is not None else "not in it"
        first = (module.name, f"{module.cost_ms:g}", module.source) if i == 0 else ("", "", "")
        cells = (first[0], param.name, param.range_text, narrow, f"{param.neutral:g}", first[1], first[2])
        rows.append("| " + " | ".join(cells) + " |")
    return rows


if __name__ == "__main__":
    print(module_table(), end="")
