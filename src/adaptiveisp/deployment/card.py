"""The model card of an export: what the graphs are, for people."""

import shlex
from collections.abc import Mapping
from typing import Any

from adaptiveisp.policies.registry import NAMED_POLICIES, policy_file
from adaptiveisp.training.card import policy_card


def card_of(manifest: Mapping[str, Any]) -> str:
    """The card as Markdown.

    Args:
        manifest: content of the manifest.
    """
    policy, detector, pipeline = manifest["policy"], manifest["detector"], manifest["pipeline"]
    names = {module["id"]: module["name"] for module in pipeline["modules"]}
    if pipeline["fixed"] is None:
        runs = f"for each image the policy chooses up to {pipeline['length']} of: {', '.join(names.values())}"
    else:
        runs = f"for every image: {', '.join(names[number] for number in pipeline['fixed']) or 'no module'}"
    lines = [
        f"# {policy['name']} with {detector['name']}, as ONNX",
        "",
        f"Made by adaptiveisp {manifest['provenance']['version']}. `manifest.json` describes inputs, outputs and "
        "the self-test.",
        "",
        "| graph | bytes | inputs | outputs |",
        "|---|---:|---|---|",
    ]
    for entry in manifest["graphs"].values():
        sides = (", ".join(_tensor(one) for one in entry[side]) for side in ("inputs", "outputs"))
        lines.append(f"| `{entry['file']}` | {entry['bytes']:,} | {' | '.join(sides)} |")
    lines += [
        "",
        f"- Policy: {policy['kind']}. {policy['origin']}".rstrip(),
        f"- Modules: {runs}.",
        f"- Working size: {manifest['geometry']['size']} pixels, padded to {manifest['geometry']['padded']}.",
        f"- Detector: {detector['name']}, {len(detector['class_names'])} classes, scores above "
        f"{detector['confidence']:g}.",
        f"- Precision: {manifest['precision']}.{_quantised(manifest.get('quantisation'))}",
        f"- Command: `{without_folders(manifest['provenance']['command'])}`",
    ]
    return "\n".join(lines) + "\n"


def full_card(spec: str, graphs: str) -> str:
    """The card of a folder with a policy and its graphs: that of the policy, where it was learned, then the graphs'.

    Args:
        spec: the policy, as given to `export`.
        graphs: what `card_of` says.
    """
    if spec in NAMED_POLICIES:
        return graphs
    file = policy_file(spec)
    about = policy_card(spec).rstrip().replace(f"`{file.name}`", f"`policy{file.suffix}`")
    return f"{about}\n\n{graphs.replace('# ', '## ', 1)}"


def _quantised(entry: Mapping[str, Any] | None) -> str:
    """A sentence about networks of whole numbers."""
    if entry is None:
        return ""
    raws = f"; ranges of {len(entry['calibration'])} raws" if entry["calibration"] else ""
    return f" The networks of {' and '.join(entry['parts'])} compute in whole numbers of 8 bits{raws}."


def without_folders(command: str) -> str:
    """The command with the names of files alone: an export is passed on, and folders are the user's own."""
    parts = []
    for part in shlex.split(command):
        option, equals, value = part.partition("=") if part.startswith("--") else ("", "", part)
        parts.append(option + equals + value.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1])
    return shlex.join(parts)


def _tensor(entry: Mapping[str, Any]) -> str:
    sides = ", ".join(str(side) for side in entry["shape"])
    return f"`{entry['name']}` {entry['dtype']} ({sides})"
