"""A policy's card: a page in Markdown that says what the policy is, how it was learned, and what was measured.

Everything on it comes from the policy's file, from the run folder that holds it, and from reports of `eval`. What those
do not tell is said to be unknown.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptiveisp.errors import DataError, UsageError, shown
from adaptiveisp.evaluation.tables import markdown, percent, points
from adaptiveisp.policies.checkpoint import read_header
from adaptiveisp.policies.environment import STOP
from adaptiveisp.policies.fixed import load_fixed
from adaptiveisp.policies.registry import NAMED_POLICIES, SHIPPED, policy_file, shipped_file
from adaptiveisp.raw.unprocess import LIGHTS
from adaptiveisp.training.config import CONFIG, read_config
from adaptiveisp.utils.files import read_json

REPORT = "report.json"
SUMMARY = "summary.json"
_HEAD = "---\nlibrary_name: adaptiveisp\ntags:\n- raw\n- image-signal-processing\n- object-detection\n---\n"
"""Front matter by which the Hugging Face hub files the page."""
_REPORT_REMEDY = "give the folder or the report.json of an evaluation"


def policy_card(spec: str, reports: Sequence[Path] = (), name: str = "") -> str:
    """The card of a policy, as Markdown.

    Args:
        spec: a shipped policy, a run folder, a folder of `save_pretrained`, or a policy file.
        reports: folders or report.json files of `eval`, whose scores the card shows.
        name: the policy's name in the reports, or that of its group of seeds; "" takes the name of the folder or file.

    Raises:
        UsageError: there is no such policy, or it is a rule that was not learned.
        WeightsError: the policy's file is damaged.
        DataError: a file of the run or a report cannot be read or is wrong, or a report has no such policy.
    """
    if spec in SHIPPED and not reports:
        return shipped_file(spec, ".md").read_text(encoding="utf-8")
    if spec in NAMED_POLICIES:
        raise UsageError(f"policy {spec} is part of the package and was not learned; docs/commands.md describes it")
    file = policy_file(spec)
    title = spec if spec in SHIPPED else Path(spec).resolve().stem
    try:
        training, limits = _training(file), _limits(file.parent)
    except (AttributeError, TypeError, ValueError) as error:  # values of other types than a run writes
        remedy = f"restore its {CONFIG} and {SUMMARY}, or give the policy's file alone in another folder"
        raise DataError(f"{file.parent}: is no folder of a run of this version ({error}); {remedy}") from error
    parts = [_HEAD, f"# {title}\n", _what(file), "## Training\n", training, "## Scores\n"]
    parts += [_scores(path, name or title) for path in reports] or [
        "Not known: no report of an evaluation was given.\n"
    ]
    return "\n".join([*parts, "## Limits\n", limits])


def _what(file: Path) -> str:
    """The paragraph that says what the policy is."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if file.suffix == ".json":
        pipeline = load_fixed(file)
        stages = ", ".join(stage.module for stage in pipeline.pipeline.stages) or "none"
        text = f"One pipeline for all images: {stages} (preprocessing: {pipeline.preprocessing})."
    else:
        header = read_header(file)
        modules = ", ".join(name for name in header.modules if name != STOP.name)
        depends = "depends on the image" if header.condition == "image" else "is the same for all images"
        text = (
            f"A policy of the kind `{header.kind}`: after the preprocessing `{header.start}` it runs at most "
            f"{header.horizon} modules, with parameters for each image. The choice of modules {depends}. It chooses "
            f"from {modules} (module set `{header.module_set}`)."
        )
    return f"{text}\n\nFile `{file.name}`, SHA-256 `{digest}`.\n"


def _training(file: Path) -> str:
    """How the policy was learned, from the files of its run, or what its own file says of its origin."""
    folder = file.parent
    if not (folder / CONFIG).is_file():
        origin = read_header(file).origin if file.suffix != ".json" else ""
        said = f"; the file itself says: {origin}" if origin else ""
        return f"Not known: the policy's file came without the folder of its run{said}.\n"
    train, settings = read_config(folder / CONFIG)
    summary = _json(folder / SUMMARY) if (folder / SUMMARY).is_file() else {}
    provenance = summary.get("provenance", {})
    hashes = provenance.get("weights_sha256", {})
    light = str(train.get("light"))
    low, high = LIGHTS.get(light, (0.0, 0.0))
    rows = [
        ("method", str(train.get("method", ""))),
        ("detector", _with(str(train.get("detector", "")), hashes.get(str(train.get("detector")), ""))),
        ("data", ", ".join(map(_short, _listed(train.get("data"))))),
        ("chosen on", ", ".join(map(_short, _listed(train.get("dev")))) or "none: the last state of the run"),
        ("light", f"{light}: {low:g} to {high:g} of full" if high else "that of the raws"),
        ("noise model", str(train.get("noise", "")) if high else "that of the raws"),
        ("light sources", str(train.get("illuminants", "daylight")) if high else "those of the raws"),
        ("starts from", _short(str(train.get("warm_start") or "")) or "random weights"),
        ("crops, pixels", str(settings.get("size", ""))),
        ("detector passes", f"{summary.get('passes', train.get('budget', 0)):,}"),
        ("seed", str(train.get("seed", 0))),
        ("code", str(provenance.get("commit") or provenance.get("version") or "not known")),
    ]
    best, first = summary.get("best_ap50_on_dev"), summary.get("ap50_on_dev_at_start", {})
    if best is not None:
        others = ", ".join(f"{what} {points(value)}" for what, value in first.items())
        rows.append(("AP50 on dev", f"{points(best)} ({others})" if others else points(best)))
    command = " ".join(map(_short, str(provenance.get("command", "")).split()[1:]))
    text = f"{markdown(('', ''), rows)}\n"
    return f"{text}\n```sh\nadaptiveisp {command}\n```\n" if command else text


def _scores(path: Path, name: str) -> str:
    """The scores of a policy and its differences from others in a report.

    Raises:
        DataError: the report cannot be read, or has no such policy.
    """
    file = path / REPORT if path.is_dir() else path
    report = _json(file)
    try:
        settings, provenance = report["settings"], report["provenance"]
        rows = {**report["policies"], **report["groups"]}
        sets = report.get("sets", {})
        if name not in rows:
            known = ", ".join(sorted(rows))
            raise DataError(f"{file}: has no policy {shown(name)}; give one of {known} by --name")
        lines = []
        for detector, score in rows[name].items():
            value = score.get("ap50", score.get("ap50_mean"))
            alone = [_of_set(one, name, detector) for one in sets.values()]
            worse = percent(score.get("worse_than_auto_exposure"))
            lines.append((detector, points(value), *alone, f"{score['clock_ms']:.1f}", worse))
        group = name.rsplit("/", 1)[0]  # a run of a group has the group's differences
        differences = [
            (f"{d['a']} - {d['b']}", d["detector"], points(d["mean"], sign=True), _interval(d))
            for d in report["differences"]
            if d["metric"] == "ap50" and {name, group} & {d["a"], d["b"]}
        ]
        what = f"Light {settings['light']}, noise {settings['noise']}, {settings['size']} pixels"
        images = next(iter(rows[name].values()))["n_images"]
        commit = provenance.get("commit") or provenance.get("version")
    except (KeyError, TypeError, AttributeError, ValueError, StopIteration) as error:
        raise DataError(f"{file}: is no report of this version ({error!r}); {_REPORT_REMEDY}") from error
    header = ("detector", "AP50", *map(_short, sets), "clock ms", "worse than auto-exposure")
    text = f"{what}; {images:,} raws, seed {settings['seed']}; code of {commit}.\n\n{markdown(header, lines)}\n"
    if differences:
        text += f"\n{markdown(('difference', 'detector', 'AP50', '95 % interval'), differences)}\n"
    return text


def _of_set(report: Mapping[str, Any], name: str, detector: str) -> str:
    """The AP50 of a policy on one of several data sets."""
    score = {**report["policies"], **report["groups"]}[name][detector]
    return points(score.get("ap50", score.get("ap50_mean")))


def _interval(difference: Mapping[str, Any]) -> str:
    return f"{points(difference['low'], sign=True)} to {points(difference['high'], sign=True)}"


def _limits(folder: Path) -> str:
    """What the policy has not seen, as far as the run says it."""
    lines = ["With another detector than the one for which it was learned, measure it first."]
    if (folder / CONFIG).is_file():
        train, settings = read_config(folder / CONFIG)
        if train.get("light") in LIGHTS:
            low, high = LIGHTS[train["light"]]
            lines.append("It was learned on synthetic raws of photos; on raws of a camera it has to be measured.")
            lines.append(f"Light below {low:g} or above {high:g} of full was never seen.")
        if settings.get("size"):
            lines.append(f"Learned at {settings['size']} pixels; at a size far from that, noise looks different.")
    return "".join(f"- {line}\n" for line in lines)


def _json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        DataError: it cannot be read, or holds anything else.
    """
    content = read_json(path, DataError, _REPORT_REMEDY)
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no report; {_REPORT_REMEDY}")
    return content


def _with(name: str, digest: str) -> str:
    return f"{name}, SHA-256 `{digest}`" if digest else name


def _listed(value: Any) -> list[str]:
    """One path or several as a list of texts."""
    return [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)] if value else []


def _short(path: str) -> str:
    """The last two parts of a path: where the files of a machine lie is nobody's business."""
    return "/".join(path.replace("\\", "/").split("/")[-2:]) if path.startswith(("/", "..", "~")) else path
