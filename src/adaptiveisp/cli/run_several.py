"""`run` with several policies: a folder of outputs for each, and a page that shows them side by side."""

import argparse
import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from adaptiveisp.cli.console import set_up_torch
from adaptiveisp.cli.exit_codes import DONE
from adaptiveisp.cli.options import raw_facts
from adaptiveisp.errors import UsageError

if TYPE_CHECKING:
    from adaptiveisp.cli.run import Inputs
    from adaptiveisp.inference.predictor import AdaptiveISP
    from adaptiveisp.utils.output_folder import FolderClaim


def run_several(options: argparse.Namespace, inputs: list[str], policies: Sequence[str]) -> int:
    """Runs every policy on the same inputs, and writes OUT/POLICY/… as `run` does for one, and OUT/compare.html.

    Args:
        options: the options of the command.
        inputs: raw files, folders, globs.
        policies: what --policy names, two or more.

    Raises:
        UsageError: two policies have the same name.
    """
    from adaptiveisp.cli.run import claimed, find_inputs, load_predictor, run_into
    from adaptiveisp.detectors.loading import load_detector
    from adaptiveisp.evaluation.coco_results import set_folders
    from adaptiveisp.inference.result_files import SETTINGS_FILE, FormerFiles
    from adaptiveisp.utils.output_folder import claim_folder, reclaim_folder, set_outdated

    device = set_up_torch(options)
    detector = load_detector(options.detector, device)
    predictors: dict[str, AdaptiveISP] = {}
    for spec in policies:
        isp = load_predictor(options, spec, device, detector)
        if isp.policy.name in predictors:
            raise UsageError(f"two policies have the same name ({isp.policy.name}); rename a file")
        predictors[isp.policy.name] = isp
    folders = dict(zip(predictors, set_folders(list(predictors)), strict=True))
    found = find_inputs(options, inputs)
    code, out = DONE, options.out
    goes_on = options.resume and any((out / name / SETTINGS_FILE).exists() for name in folders.values())
    with reclaim_folder(out, "run") if goes_on else claim_folder(out, "run", options.overwrite) as claim:
        former = FormerFiles(out, [] if options.resume else [Path(frame.stem) for frame in found.frames])
        former.remove_batch_files()  # of an earlier run of one policy in this folder, and its files of the inputs
        for frame in found.frames:
            former.remove(frame.stem)
        with ExitStack() as stack:
            places = {name: _with_out(options, out / folder) for name, folder in folders.items()}
            claims = {name: stack.enter_context(claimed(own)) for name, own in places.items()}
            if not options.resume:  # of all policies before the first of them runs
                for inner in claims.values():
                    set_outdated(inner.folder, (inner.folder / SETTINGS_FILE).exists())
            for name, isp in predictors.items():
                if not options.quiet:
                    print(f"policy {name}")
                code = max(code, run_into(claims[name], isp, found, places[name]))
        _write_page(claim, predictors, folders, found, options)
    return code


def _with_out(options: argparse.Namespace, out: Path) -> argparse.Namespace:
    own = copy.copy(options)
    own.out = out
    return own


def _write_page(
    claim: "FolderClaim",
    predictors: Mapping[str, "AdaptiveISP"],
    folders: Mapping[str, str],
    found: "Inputs",
    options: argparse.Namespace,
) -> None:
    """Writes the page and the summary of all policies, and says where they are."""
    from adaptiveisp.detectors.backends.choice import backends_of
    from adaptiveisp.evaluation.run_comparison import compare_runs
    from adaptiveisp.inference.result_files import COMPARE_FILE, SUMMARY_FILE
    from adaptiveisp.utils.files import write_json
    from adaptiveisp.utils.provenance import provenance

    out = claim.folder
    detector = next(iter(predictors.values())).detector
    backends = {detector.name: backends_of(detector)}
    origin = provenance(options.seed, {detector.name: detector.weights_sha256}, backends=backends)
    compared = compare_runs(predictors, folders, found.chosen, out, raw_facts(options))
    compared.save(out / COMPARE_FILE, origin)
    shown = [row.title for row in compared.grid.rows]
    write_json(out / SUMMARY_FILE, {"policies": compared.table, "shown": shown, "provenance": origin})
    if not options.quiet:
        print(f"side by side: {out / COMPARE_FILE}")
