"""The options and settings of a training run, and the configuration file that holds them."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from adaptiveisp.data.dataset_yaml import split_spec
from adaptiveisp.errors import DataError, UsageError, logger
from adaptiveisp.isp.costs import CLOCK, PAPER
from adaptiveisp.raw.camera_matrices import CAMERA_MATRICES, CameraName, check_camera_name
from adaptiveisp.raw.illuminants import Illuminants, check_illuminants
from adaptiveisp.raw.unprocess import NOISES, NoiseName, check_bits, check_noise_name
from adaptiveisp.training.methods.module_choice import (
    with_module_names,
    with_modules_of_files,
    with_more_modules,
    without_other_initials,
)
from adaptiveisp.training.methods.registry import find_method
from adaptiveisp.utils import defaults
from adaptiveisp.utils.config import as_yaml, changed, list_form, require
from adaptiveisp.utils.files import write_text
from adaptiveisp.utils.yaml_files import read_yaml

CONFIG = "config.yaml"
PATHS = ("data", "images", "dev", "dev_images", "cache")
"""Options that are paths; `noise` and `camera_matrix` may be paths."""
RECIPES = Path(__file__).with_name("recipes")
"""Folder of the recipes that come with the package."""
MOST_PIXELS = 1 << 25
"""Largest number of pixels in a batch: 8 images of 2048x2048. Presets have 0.4 to 2.1 million."""
LARGEST_RATE = 10
"""Largest learning rate of any setting, far above useful ones: a step of Adam is about as large as its rate."""
DEV_SIZE = defaults.SIZE
"""Smallest `dev_size` of the default, which is the default size of `eval` and `run`."""
Paths = str | tuple[str, ...] | list[str]
"""One path, or several."""
LabelSource = Literal["given", "teacher"]
TEACHER_CONFIDENCE = 0.5
"""Least score of a teacher's target. In 253 labelled photos of COCO (clean, at 416), 51 % of the detections of
YOLOv3-tiny with at least this score hit an object of their class at IoU 0.5; with a score of at least 0.3 it was 39 %,
with 0.7 59 %. They found 11 %, 16 % and 8 % of the labelled objects. Below 0.5 most targets are wrong, and far above it
few are left."""


@dataclass(frozen=True)
class TrainConfig:
    """The options of a run that do not depend on its method. They are stored in its folder, for `--resume`.

    Attributes:
        data: COCO JSON of the training images, or a folder made by `synth`; with labels "teacher" any folder of photos
            (with light) or raws. Several data sets are learned from in turn, see `data.joined_images`.
        images: folder of the images of a COCO JSON; of several JSONs one folder for all, or one for each.
        method: name of a registered method, see `register_method`.
        preset: name of the method's preset, whose settings the run changes; "" for its first one.
        dev, dev_images: like data and images, for the dev set, whose score selects the best policy; "" for none. Of
            several sets the mean of their scores does.
        detector: as for `load_detector`.
        labels: "given" uses the annotations of data. "teacher" needs none: the targets are the confident detections of
            the detector itself, see `training.pseudo_labels`.
        teacher_confidence: least score of such a target, in (0, 1].
        limit: number of photos of each data set to use, from the first on; 0 for all.
        light: brightness range in which raws are made of sRGB photos; None if the images are raws.
        noise: noise model of such raws: a name, or a noise file made by `adaptiveisp calibrate`.
        bits: depth of the codes of such raws, 4 to 14; 0 for that of the noise model.
        camera_matrix: the colours of their sensor: a name, or a YAML file, see `raw.camera_matrices`.
        illuminants: the light sources of such raws: daylight or planckian, see `raw.illuminants`.
        budget: number of images that pass through the detector.
        seed: of all random numbers, at least 0.
        warm_start: policy whose weights the run starts from; "" for random weights.
        checkpoint_every, dev_every: iterations between checkpoints, and between scores on dev.
        dev_draws: draws of light and noise for each photo of dev.
        dev_size: longer side in pixels of the images in scores on dev and of the teacher, as `size` of `eval`; 0
            for 416, or the size of the training images if that is larger. The size of the training images may be
            smaller, because they are crops. A run stores the number.
        needs_warm_start: whether the run must start from an earlier policy; such a recipe is refused without one.
        cache: folder where developed raws are kept for this and other runs, see `data.frame_cache`; "" for none.
    """

    data: Paths = ""
    images: Paths = ""
    method: str = defaults.METHOD
    preset: str = ""
    dev: Paths = ""
    dev_images: Paths = ""
    detector: str = defaults.DETECTOR
    labels: LabelSource = defaults.LABELS
    teacher_confidence: float = TEACHER_CONFIDENCE
    limit: int = 0
    light: str | None = None
    noise: NoiseName = defaults.NOISE
    bits: int = 0
    camera_matrix: CameraName = defaults.CAMERA_MATRIX
    illuminants: Illuminants = defaults.ILLUMINANTS
    budget: int = defaults.BUDGET
    seed: int = defaults.SEED
    warm_start: str = ""
    checkpoint_every: int = defaults.CHECKPOINT_EVERY
    dev_every: int = defaults.DEV_EVERY
    dev_draws: int = 2
    dev_size: int = 0
    needs_warm_start: bool = False
    cache: str = ""

    def __post_init__(self) -> None:
        for name in ("data", "images", "dev", "dev_images"):
            several = _listed(getattr(self, name))
            object.__setattr__(self, name, several if len(several) > 1 else "".join(several))
        for name in ("budget", "checkpoint_every", "dev_every", "dev_draws"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1")
        for name in ("limit", "dev_size"):
            require(getattr(self, name) >= 0, f"{name} must not be negative")
        require(self.seed >= 0, "seed must not be negative")
        check_noise_name(self.noise)
        check_bits(self.bits)
        check_camera_name(self.camera_matrix)
        check_illuminants(self.illuminants)
        require(0 < self.teacher_confidence <= 1, "teacher_confidence must be above 0 and at most 1")


def _listed(paths: Paths) -> tuple[str, ...]:
    """The paths of an option, none for ""."""
    several = [paths] if isinstance(paths, str) else paths
    return tuple(path for path in several if path)


def write_config(folder: Path, options: TrainConfig, settings: Any, provenance: dict[str, Any]) -> None:
    """Writes config.yaml, which `read_config` and `train --config` read."""
    content = {"train": as_yaml(options), "settings": as_yaml(settings), "provenance": provenance}
    write_text(folder / CONFIG, yaml.safe_dump(content, sort_keys=False))


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parts `train` and `settings` of a configuration file, not checked yet; a missing part is empty.

    Raises:
        DataError: the file is missing, is not YAML, or has another structure.
    """
    remedy = "give a YAML file with the parts train: and settings:, such as the config.yaml of a run"
    content = read_yaml(Path(path), DataError, remedy)
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no settings; {remedy}")
    train, settings = (content.get(part) or {} for part in ("train", "settings"))
    for part in (train, settings):
        if not isinstance(part, dict) or not all(isinstance(name, str) for name in part):
            raise DataError(f"{path}: train and settings must map names to values; {remedy}")
    if not (train or settings):
        raise DataError(f"{path}: holds no settings; {remedy}")
    return train, settings


def recipe_files() -> dict[str, Path]:
    """Name → file of the recipes that come with the package."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.yaml"), key=lambda path: path.stem)}


def find_config(text: str) -> Path:
    """The configuration file that `--config` names: a path, or the name of a recipe of the package.

    Args:
        text: a path, or the name of a recipe. An existing file comes first.

    Raises:
        UsageError: there is no such recipe.
    """
    path, recipes = Path(text), recipe_files()
    if path.is_file():
        return path
    if text in recipes:
        return recipes[text]
    if path.suffix in (".yaml", ".yml", ".json") or path.name != text:
        return path  # it is missing, which its reader reports
    names = ", ".join(recipes)
    raise UsageError(f"recipe {text!r} does not exist; choose one of {names}, or give the path of a YAML file")


def make_settings(
    method: str,
    preset: str,
    changes: Mapping[str, Any],
    origin: str,
    from_file: bool = False,
    more_modules: Sequence[str] = (),
) -> Any:
    """A preset of a method with some settings changed.

    Args:
        method: its name.
        preset: name of a preset; "" for the method's first one.
        changes: setting → value.
        origin: source of the changes, for errors.
        from_file: whether the changes are those of a file, in which an empty list of modules has the meaning of
            `module_choice.MODULES_OF_FILES`.
        more_modules: registered modules that the method chooses from, or runs, beside those of the settings.

    Raises:
        UsageError: there is no such method, preset or setting, or a value does not fit.
    """
    presets = find_method(method).presets
    if preset and preset not in presets:
        raise UsageError(f"preset {preset!r} does not exist for {method}; choose one of {', '.join(presets)}")
    initial = presets[preset or next(iter(presets))]
    if "reward" in changes and not hasattr(initial, "reward"):
        raise UsageError(f"{origin}: {method} has no reward; leave it out, or choose sequence or actor_critic")
    if changes.get("latency_ms") is not None and not hasattr(initial, "latency_ms"):
        raise UsageError(
            f"{origin}: {method} keeps no latency; leave it out, or choose sequence, actor_critic or fixed"
        )
    wanted = with_modules_of_files(initial, changes) if from_file else changes
    if from_file and getattr(initial, "costs", None) == CLOCK:  # files that leave costs out are older than the clock
        wanted = {"costs": PAPER, **wanted}
    wanted = without_other_initials(initial, with_more_modules(initial, wanted, more_modules))
    settings = changed(initial, wanted, origin, list_form)
    _warn_of_modules_not_imitated(settings, more_modules)
    pixels = settings.batch * settings.size**2
    if pixels > MOST_PIXELS:
        raise UsageError(
            f"{origin}: a batch of {settings.batch} images of size {settings.size} has {pixels / 1e6:.0f} MP, more "
            f"than the limit of {MOST_PIXELS / 1e6:.0f}; lower size or batch"
        )
    return settings


def _warn_of_modules_not_imitated(settings: Any, names: Sequence[str]) -> None:
    """Says which added modules the imitation warm-up leaves out, as a recipe that names its own expert modules does."""
    experts = getattr(settings, "expert_modules", ())
    missing = [name for name in names if name not in experts]
    if missing and experts and getattr(settings, "imitation_warmup", 0) > 0:
        listed = ", ".join([*experts, *missing])
        logger.warning(
            "%s: not among the expert modules, which the first %.0f %% of the budget imitates, so that a short run may "
            "not use it; add it by --set 'expert_modules=[%s]'",
            ", ".join(missing),
            100 * settings.imitation_warmup,
            listed,
        )


def resolve(
    train: Mapping[str, Any],
    settings: Mapping[str, Any],
    origin: str,
    from_file: bool = True,
    more_modules: Sequence[str] = (),
) -> tuple[TrainConfig, Any]:
    """Options and settings from their plain values.

    Args:
        train: option → value.
        settings: setting of the method → value.
        origin: source of the values, for errors.
        from_file, more_modules: see `make_settings`.

    Raises:
        UsageError: one does not exist or does not fit.
    """
    options = changed(TrainConfig(), train, origin)
    return options, make_settings(options.method, options.preset, settings, origin, from_file, more_modules)


def completed(options: TrainConfig, settings: Any) -> tuple[TrainConfig, Any]:
    """The options and settings of a new run with everything written out that a later version could change.

    Args:
        options: of the run.
        settings: of its method.

    Raises:
        UsageError: the budget does not hold a batch, a learning rate is too large, or a warm start is missing.
    """
    require(
        options.budget >= settings.batch,
        f"budget {options.budget} does not hold one batch of {settings.batch} images; raise the budget or lower batch",
    )
    for field in fields(settings):
        rate = getattr(settings, field.name)
        if field.name.endswith("rate") and isinstance(rate, int | float):
            require(rate <= LARGEST_RATE, f"{field.name} = {rate:g} is too large; give at most {LARGEST_RATE}")
    missing = options.needs_warm_start and not options.warm_start
    require(not missing, "these settings continue an earlier run; give its folder or its policy with --warm-start")
    size = options.dev_size or max(DEV_SIZE, settings.size)
    # The run may be resumed from another folder.
    paths: dict[str, Any] = {name: tuple(map(os.path.abspath, _listed(getattr(options, name)))) for name in PATHS}
    if options.noise not in NOISES:
        paths["noise"] = os.path.abspath(options.noise)
    if options.camera_matrix not in CAMERA_MATRICES:
        paths["camera_matrix"] = os.path.abspath(options.camera_matrix)
    paths["cache"] = "".join(paths["cache"])
    return replace(options, dev_size=size, **paths), with_module_names(settings)


def load_recipe(name: str) -> tuple[TrainConfig, Any]:
    """The options and settings of a recipe, for `train`; `dataclasses.replace` adds the data.

    Args:
        name: of a recipe of the package, or the path of a configuration file, such as config.yaml of a run. Its `cache`
            is not used, because a file must not decide where files are written and removed.

    Raises:
        DataError: the file is missing or is not a configuration file.
        UsageError: there is no such recipe, or a value does not fit.
    """
    path = find_config(name)
    options, settings = read_config(path)
    options.pop("cache", None)
    return resolve(options, settings, str(path))


def data_digest(options: TrainConfig) -> str:
    """A hash of data, dev, noise file and camera file: files by their content, folders by names and sizes.

    It tells whether the data have changed when a run is resumed.
    """
    digest = hashlib.blake2b(digest_size=16)
    own_files = [options.noise] if options.noise not in NOISES else []
    own_files += [options.camera_matrix] if options.camera_matrix not in CAMERA_MATRICES else []
    given = (options.data, options.images, options.dev, options.dev_images)
    for text in (*(text for paths in given for text in _listed(paths) or ("",)), *own_files):
        path = split_spec(Path(text))[0] if text else Path()
        if text and path.is_file():
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        for place, folders, names in os.walk(path) if text and path.is_dir() else ():
            folders.sort()
            for name in sorted(names):
                with suppress(OSError):  # a broken link, or a file that is removed at this moment
                    digest.update(f"{name} {os.stat(os.path.join(place, name)).st_size}\n".encode(errors="replace"))
    return digest.hexdigest()
