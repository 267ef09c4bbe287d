"""Saves a policy with its settings in a folder, reads it back, and shares such folders on the Hugging Face hub.

The hub's library is imported only for uploads and downloads. Its mixin would have to be a base class of `AdaptiveISP`
and would be imported with it, so that these functions call the library instead.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptiveisp.detectors.loading import HUB_NAME, load_detector
from adaptiveisp.errors import AdaptiveISPError, UsageError, WeightsError, logger
from adaptiveisp.policies.fixed import FixedPipeline, save_fixed
from adaptiveisp.policies.latency import WithinLatency
from adaptiveisp.policies.registry import NAMED_POLICIES, RUN_POLICIES, SHIPPED, policy_file
from adaptiveisp.types import Detector
from adaptiveisp.utils import defaults
from adaptiveisp.utils.config import record
from adaptiveisp.utils.files import atomic_path, read_json, sha256_of, write_json
from adaptiveisp.utils.optional_imports import import_extra
from adaptiveisp.utils.own_code import reason_of
from adaptiveisp.utils.yaml_files import read_yaml

if TYPE_CHECKING:
    from adaptiveisp.inference.predictor import AdaptiveISP

SETTINGS_FILE = "adaptiveisp.json"
"""The file of a folder that names its policy and holds its settings."""
POLICY_STEM = "policy"
RUN_SUMMARY_FILE = "summary.json"
"""The file of a finished run that has the hashes of its policies."""
MANIFEST_FILE = "manifest.json"
"""The file that describes the graphs of an export, where the folder has them; see docs/export.md."""
RUN_SETTINGS_FILE = "config.yaml"
"""The file of a run folder that names the detector for which its policy was learned."""
_REMEDY = "give a folder that save_pretrained wrote, or the folder of a training run"


@dataclass(frozen=True)
class PretrainedSettings:
    """The content of `SETTINGS_FILE`.

    Attributes:
        policy: name of a policy file in the same folder, or of a policy that is part of the package.
        detector: name of the detector, which must not be code.
        size: longer side in pixels at which policy, modules and detector work.
        confidence: least score of a box in a result.
        camera_white_balance: whether the camera's own gains are applied first.
        files: name of a file of the folder → its SHA-256: the policy's file, and the manifest of exported graphs. Empty
            in folders of earlier versions, of which nothing is compared.
    """

    policy: str
    detector: str = defaults.DETECTOR
    size: int = defaults.SIZE
    confidence: float = defaults.CONFIDENCE
    camera_white_balance: bool = False
    files: Mapping[str, str] = field(default_factory=dict)


def settings_of(name: str | Path, detector: str | Detector | None) -> dict[str, Any]:
    """The arguments of `AdaptiveISP` for a pretrained policy; see `AdaptiveISP.from_pretrained`.

    Raises:
        UsageError: there is no such policy or folder.
        WeightsError: the folder's files are missing or wrong or were changed, or the repository cannot be downloaded.
    """
    if str(name) in SHIPPED:
        return {"policy": str(name), "detector": detector or defaults.DETECTOR}
    folder = Path(name)
    if not folder.is_dir():
        if not HUB_NAME.fullmatch(str(name)):
            known = ", ".join(SHIPPED)
            raise UsageError(
                f"no pretrained policy {str(name)!r}; choose one of {known}, a folder that save_pretrained wrote, the "
                "folder of a training run, or organisation/name of the Hugging Face hub"
            )
        folder = _downloaded(str(name))
    if not (folder / SETTINGS_FILE).exists() and any((folder / one).is_file() for one in RUN_POLICIES):
        _check_run(folder)
        return {"policy": str(folder), "detector": detector or _detector_of_run(folder)}
    content = read_json(folder / SETTINGS_FILE, WeightsError, _REMEDY)
    found = record(PretrainedSettings, content, str(folder / SETTINGS_FILE), WeightsError, _REMEDY)
    for one, digest in found.files.items():
        if Path(one).name == one and (folder / one).is_file():
            _check_hash(folder / one, digest, SETTINGS_FILE)
    return {
        "policy": _policy_of(found.policy, folder),
        # The folder may come from anybody, so it must name neither code nor a model to download.
        "detector": load_detector(found.detector, trusted=False) if detector is None else detector,
        "size": found.size,
        "confidence": found.confidence,
        "camera_white_balance": found.camera_white_balance,
    }


def _check_run(folder: Path) -> None:
    """Compares the policy of a finished run with the hash that the run wrote.

    Raises:
        WeightsError: it is another one.
    """
    file, summary = policy_file(str(folder)), folder / RUN_SUMMARY_FILE
    if not summary.is_file():  # a run that goes on
        return
    content = read_json(summary, WeightsError, "restore it, or give the policy's file alone")
    hashes = content.get("policies_sha256") if isinstance(content, dict) else None
    digest = hashes.get(file.name) if isinstance(hashes, dict) else None
    if isinstance(digest, str):  # runs of earlier versions have none
        _check_hash(file, digest, RUN_SUMMARY_FILE)


def _check_hash(file: Path, digest: str, said_by: str) -> None:
    """Compares a file with its SHA-256.

    Raises:
        WeightsError: it was changed.
    """
    if sha256_of(file) != digest:
        raise WeightsError(
            f"{file}: was changed since {said_by} was written, by its hash; restore it, or, if it is "
            "yours, give the file as the policy"
        )


def warn_of_other_detectors(policies: Sequence[str], detectors: Sequence[str]) -> None:
    """Warns of runs that learned for a detector that is not used: a policy serves the detector of its training.

    Args:
        policies: values of --policy; those that are no folders of runs are ignored.
        detectors: values of --detector.
    """
    used = {*detectors, *map(os.path.abspath, detectors)}
    for policy in policies:
        config = Path(policy) / RUN_SETTINGS_FILE
        if not config.is_file():
            continue
        content = read_yaml(config, WeightsError, "restore it")
        options = content.get("train") if isinstance(content, dict) else None
        learned_for = options.get("detector") if isinstance(options, dict) else None
        if isinstance(learned_for, str) and learned_for not in used:
            logger.warning(
                "%s: was trained for the detector %s, which is not among those used here; see --detector",
                policy,
                learned_for,
            )


def _detector_of_run(folder: Path) -> Detector:
    """The detector that the config of a run folder names.

    Raises:
        WeightsError: the config is missing, or names none.
        UsageError: there is no such detector, or the name stands for code or a model to download.
    """
    remedy = "give detector=, the detector for which the policy was learned"
    content = read_yaml(folder / RUN_SETTINGS_FILE, WeightsError, remedy)
    train = content.get("train") if isinstance(content, dict) else None
    name = train.get("detector", defaults.DETECTOR) if isinstance(train, dict) else None
    if not isinstance(name, str):
        raise WeightsError(f"{folder / RUN_SETTINGS_FILE}: names no detector; {remedy}")
    return load_detector(name, trusted=False)


def _policy_of(name: str, folder: Path) -> str:
    """The policy that the settings name: part of the package, or a file of the folder itself.

    Raises:
        WeightsError: there is no such policy.
    """
    if name in (*SHIPPED, *NAMED_POLICIES):
        return name
    path = folder / name
    if Path(name).name != name or path.suffix not in (".json", ".safetensors") or not path.is_file():
        raise WeightsError(f"{folder / SETTINGS_FILE}: its policy {name!r} is not a file of the folder; {_REMEDY}")
    return str(path)


def save_pretrained(isp: "AdaptiveISP", folder: Path, overwrite: bool) -> Path:
    """See `AdaptiveISP.save_pretrained`."""
    if not overwrite and (folder / SETTINGS_FILE).exists():
        raise UsageError(f"{folder}: holds a saved policy already; choose another folder, or give overwrite=True")
    _check_graphs(isp, folder)
    name = _save_policy(isp, folder)
    files = {one: sha256_of(folder / one) for one in (name, MANIFEST_FILE) if (folder / one).is_file()}
    if isp.latency_ms is not None:
        logger.warning(
            "%s: holds no latency; give latency_ms=%g to from_pretrained too, which measures the machine it runs on",
            *(folder, isp.latency_ms),
        )
    detector = isp.detector_spec or isp.detector.name
    settings = PretrainedSettings(name, detector, isp.size, isp.confidence, isp.camera_white_balance, files)
    write_json(folder / SETTINGS_FILE, vars(settings))
    return folder


def _check_graphs(isp: "AdaptiveISP", folder: Path) -> None:
    """Refuses a folder with the exported graphs of another policy.

    Raises:
        UsageError: the manifest there names another policy.
        WeightsError: the manifest cannot be read.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return
    content = read_json(path, WeightsError, "export the folder again")
    known = content.get("policy") if isinstance(content, dict) else None
    digest = known.get("sha256") if isinstance(known, dict) else None
    is_file = isp.policy_spec and isp.policy_spec not in NAMED_POLICIES
    if digest != (sha256_of(policy_file(isp.policy_spec)) if is_file else ""):
        raise UsageError(f"{folder}: holds the exported graphs of another policy; choose another folder")


def _save_policy(isp: "AdaptiveISP", folder: Path) -> str:
    """Writes the policy's file and returns its name; for a policy of the package it returns the policy's name."""
    if isp.policy_spec in NAMED_POLICIES:
        return isp.policy_spec
    if isp.policy_spec:
        source = policy_file(isp.policy_spec)
        target = folder / f"{POLICY_STEM}{source.suffix}"
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
        return target.name
    policy = isp.policy.policy if isinstance(isp.policy, WithinLatency) else isp.policy
    if isinstance(policy, FixedPipeline):
        save_fixed(folder / f"{POLICY_STEM}.json", policy)
        return f"{POLICY_STEM}.json"
    what = "was given as an object, which no file describes"
    raise UsageError(f"policy {isp.policy.name} {what}; give its name or file to AdaptiveISP")


def push_to_hub(isp: "AdaptiveISP", repository: str, options: dict[str, Any]) -> str:
    """See `AdaptiveISP.push_to_hub`."""
    hub = import_extra("huggingface_hub", "hub")
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(isp, Path(folder), overwrite=True)
        try:
            api = hub.HfApi()
            address = str(api.create_repo(repository, exist_ok=True))
            api.upload_folder(repo_id=repository, folder_path=folder, **options)
        except Exception as error:  # the library raises many kinds of errors, also those of the network
            raise AdaptiveISPError(f"{repository}: cannot be uploaded ({reason_of(error)}); log in first") from error
    return address


def _downloaded(name: str) -> Path:
    """The folder of a repository of the hub, downloaded or from the library's cache.

    Raises:
        WeightsError: it cannot be downloaded.
    """
    hub = import_extra("huggingface_hub", "hub")
    repository, _, revision = name.partition("@")
    try:
        patterns = [SETTINGS_FILE, f"{POLICY_STEM}.*"]
        return Path(hub.snapshot_download(repository, revision=revision or None, allow_patterns=patterns))
    except Exception as error:  # the library raises many kinds of errors, also those of the network
        reason = f"cannot be downloaded from the Hugging Face hub ({reason_of(error)})"
        raise WeightsError(f"{name}: {reason}; {_REMEDY}") from error
