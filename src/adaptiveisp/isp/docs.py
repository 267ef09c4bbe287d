"""Makes docs/modules.md from the modules' declarations: `python -m adaptiveisp.isp.docs > docs/modules.md`."""

from adaptiveisp.isp.registry import BASELINES, EXTENDED, HELPERS, PAPER, POS_ISP, IspModule

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

OF_POS_ISP = """
## The set `pos-isp`

[Imported POS-ISP policies](import.md#pos-isp-policies) use the set `pos-isp`: the paper's ten modules as the released
code of POS-ISP computes them. Every parameter is linear in the network's output.

| module | parameter | range | differs from the paper's module |
|---|---|---|---|
"""

AFTER_POS_ISP = """
A module that is not clipped hands values above 1 on to the next one. The image after the last module is clipped to
[0, 1] before it is given to a detector or written to a file.
"""

DIFFERENCES = {
    "exposure": "not clipped",
    "gamma": "values below 1e-6 are raised to it; not clipped",
    "ccm": "the entries are divided by their row's sum + 1e-8",
    "sharpen": "",
    "denoise": "distances are sqrt(Σ squared differences + 1e-8), for the pixel itself too; luma of the clipped image",
    "tone": "the image is clipped first",
    "contrast": "not clipped",
    "saturation": "the image is clipped first; 1e-8 is added to the divisors of HSV; exactly grey pixels turn red",
    "desaturation": "not clipped",
    "white_balance": "three free gains, divided by 1e-6 + the luminance that they give to white; not clipped",
}


def module_table() -> str:
    """The text of docs/modules.md."""
    paper = {module.name: module for module in PAPER}
    modules = (*EXTENDED, *HELPERS, *BASELINES)
    effects = [f"| {module.name} | {module.effect} |" for module in modules]
    rows = [row for module in modules for row in _rows(module, paper.get(module.name))]
    return EFFECTS + "\n".join(effects) + "\n" + PARAMETERS + "\n".join(rows) + "\n" + _pos_isp()


def _pos_isp() -> str:
    """The section about the set `pos-isp`; parameters of the same range share a row."""
    rows = []
    for module in POS_ISP:
        names = [param.name for param in module.params]
        named = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        rows.append(f"| {module.name} | {named} | {module.params[0].range_text} | {DIFFERENCES[module.name]} |")
    return OF_POS_ISP + "\n".join(rows) + "\n" + AFTER_POS_ISP


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
