"""The table of modules in docs/modules.md, from the modules' own declarations: `python -m adaptiveisp.isp.docs`."""

from adaptiveisp.isp.registry import EXTENDED, HELPERS, PAPER, IspModule

HEADER = """# Modules

Made by `python -m adaptiveisp.isp.docs > docs/modules.md` from the declarations in `src/adaptiveisp/isp/`; a test holds
it up to date. A pipeline file names modules and parameters as here. Its set is `extended` unless it says
`"module_set": "wide"` (the ten of the paper, with the same ranges), `"paper"` or `"released"` (the paper's ranges,
the latter with the released code's red grey). The cost is the paper's table, in milliseconds; that of modules which are
not in it is our guess on its scale ([performance](performance.md)); `adaptiveisp bench --write-costs` measures
them all on your machine.

| module | parameter | range in `extended` | range in `paper` | neutral | cost ms | source |
|---|---|---|---|---|---:|---|
"""


def module_table() -> str:
    """The text of docs/modules.md."""
    paper = {module.name: module for module in PAPER}
    rows = [row for module in (*EXTENDED, *HELPERS) for row in _rows(module, paper.get(module.name))]
    return HEADER + "\n".join(rows) + "\n"


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
