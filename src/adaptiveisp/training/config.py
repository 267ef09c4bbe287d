"""What a training run is made of: its options, its configuration file, its images and what labels them."""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from adaptiveisp.data.annotation_checks import why_nothing
from adaptiveisp.data.dataset_yaml import split_spec
from adaptiveisp.data.frame_cache import open_cache
from adaptiveisp.data.opening import Dataset, is_set_file, notes_of, open_dataset, open_unlabelled
from adaptiveisp.data.synthetic import SynthesisConfig
from adaptiveisp.data.training_images import PhotoTrainingImages, RawTrainingImages, TrainingImages
from adaptiveisp.detectors.class_names import map_classes
from adaptiveisp.errors import DataError, UsageError, first_few, logger
from adaptiveisp.raw.unprocess import NoiseName
from adaptiveisp.training.methods.registry import METHODS, find_method
from adaptiveisp.training.pseudo_labels import Teacher
from adaptiveisp.types import Detector, PseudoLabeler, Targets
from adaptiveisp.utils.config import as_yaml, changed, require
from adaptiveisp.utils.files import write_text
from adaptiveisp.utils.yaml_files import read_yaml

CONFIG = "config.yaml"
MOST_PIXELS = 1 << 25
"""Pixels of a batch at most: 8 images of 2048x2048. Presets have 0.4 to 2.1 million."""
LabelSource = Literal["given", "teacher"]
TEACHER_CONFIDENCE = 0.5
"""Least score of a teacher's target. What YOLOv3-tiny found in 253 labelled photos of COCO (clean, at 416): of at least
this score, 51 % hit an object of their class at IoU 0.5 (59 % at IoU 0.3); of 0.3, 39 % (49 %); of 0.7, 59 % (68 %).
That is 11 %, 16 % and 8 % of the labelled objects, and 86, 40 and 121 photos without any: below a half most targets are
wrong, far above it few are left. A better detector may do with less."""


@dataclass(frozen=True)
class TrainConfig:
    """What a run is made of; kept in its folder, so that `--resume` needs nothing else.

    Attributes:
        data: COCO JSON of the training images, or a folder made by `synth`; with labels "teacher" any folder of photos
            (with light) or raws.
        images: folder of the images of a COCO JSON.
        method, preset: the way to learn, and the name of the settings that the run's own started from.
        dev, dev_images: the same as data and images for what chooses the best policy; "" trains without.
        detector: as for `load_detector`.
        labels: "given" takes the annotations of data; "teacher" needs none: the targets are what the detector itself is
            sure of, see `training.pseudo_labels`.
        teacher_confidence: least score of such a target.
        limit: the first so many photos of data only; 0 takes all.
        light: brightness range in which raws are made of sRGB photos; None where the images are raws.
        noise: noise model of such raws.
        budget: image passes through the detector.
        seed: fixes everything.
        warm_start: policy whose weights the run starts from; "" starts anew.
        checkpoint_every, dev_every: iterations between checkpoints, and between scores on dev.
        dev_draws: draws a photo of dev.
        cache: folder where developed raws are kept for this run and others, see `data.frame_cache`; "" keeps none.
    """

    data: str = ""
    images: str = ""
    method: str = "actor_critic"
    preset: str = ""
    dev: str = ""
    dev_images: str = ""
    detector: str = "yolov3-tiny"
    labels: LabelSource = "given"
    teacher_confidence: float = TEACHER_CONFIDENCE
    limit: int = 0
    light: str | None = None
    noise: NoiseName = "sensor"
    budget: int = 12_000
    seed: int = 0
    warm_start: str = ""
    checkpoint_every: int = 200
    dev_every: int = 500
    dev_draws: int = 2
    cache: str = ""

    def __post_init__(self) -> None:
        for name in ("budget", "checkpoint_every", "dev_every", "dev_draws"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1")
        require(self.limit >= 0, "limit must not be negative")
        require(self.seed >= 0, "seed must not be negative")
        require(0 < self.teacher_confidence <= 1, "teacher_confidence must be above 0 and at most 1")


def write_config(folder: Path, options: TrainConfig, settings: Any, provenance: dict[str, Any]) -> None:
    """Writes config.yaml, which `read_config` and `train --config` read."""
    content = {"train": as_yaml(options), "settings": as_yaml(settings), "provenance": provenance}
    write_text(folder / CONFIG, yaml.safe_dump(content, sort_keys=False))


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parts `train` and `settings` of a configuration file, unchecked; a missing part is empty.

    Raises:
        DataError: it is missing, no YAML, or of another structure.
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


def make_settings(method: str, preset: str, changes: dict[str, Any], origin: str) -> Any:
    """A preset of a method with some settings changed.

    Args:
        method: its name.
        preset: name of a preset; "" takes the method's first.
        changes: setting → value.
        origin: where the changes come from, to put into errors.

    Raises:
        UsageError: there is no such method, preset or setting, or a value does not fit.
    """
    presets = find_method(method).presets
    if preset and preset not in presets:
        raise UsageError(f"preset {preset!r} does not exist for {method}; choose one of {', '.join(presets)}")
    settings = changed(presets[preset or next(iter(presets))], changes, origin)
    pixels = settings.batch * settings.size**2
    if pixels > MOST_PIXELS:
        raise UsageError(
            f"{origin}: batch {settings.batch} of size {settings.size} are {pixels / 1e6:.0f} MP an iteration, more "
            f"than the {MOST_PIXELS / 1e6:.0f} that are taken; lower size or batch"
        )
    return settings


def resolve(train: dict[str, Any], settings: dict[str, Any], origin: str) -> tuple[TrainConfig, Any]:
    """Options and settings from their plain values.

    Raises:
        UsageError: one does not exist or does not fit.
    """
    options = changed(TrainConfig(), train, origin)
    return options, make_settings(options.method, options.preset, settings, origin)


def data_digest(options: TrainConfig) -> str:
    """A hash of what data and dev of a run are: label files and YAMLs by content, files of folders by name and size.

    A run that goes on with other data is not the run that it was.
    """
    digest = hashlib.blake2b(digest_size=16)
    for text in (options.data, options.images, options.dev, options.dev_images):
        path = split_spec(Path(text))[0] if text else Path()
        if text and path.is_file():
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        for place, folders, names in os.walk(path) if text and path.is_dir() else ():
            folders.sort()
            for name in sorted(names):
                with suppress(OSError):  # a broken link, or a file that goes at this moment
                    digest.update(f"{name} {os.stat(os.path.join(place, name)).st_size}\n".encode(errors="replace"))
    return digest.hexdigest()


def check_gradients(method: str, settings: Any, detector: Detector) -> None:
    """Refuses a method that would learn nothing, since the detector says that its loss has no gradient.

    Raises:
        UsageError: names the methods that need none.
    """
    if _needs_gradients(method, settings) and not getattr(detector, "differentiable", True):
        raise _no_gradient(method, detector, getattr(detector, "not_differentiable_because", "") or "it says so itself")


def check_loss(method: str, settings: Any, detector: Detector, device: str) -> None:
    """Tries the detector's loss on two images of random numbers, before a run spends its budget on it.

    Args:
        method, settings: of the run.
        detector: which may be the user's own, and do anything.
        device: where it is.

    Raises:
        UsageError: the loss fails, is not one finite number an image, or has no gradient that the method needs.
    """
    size = settings.size
    image = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    quarter, whole = size / 4, torch.zeros(1, dtype=torch.long, device=device)
    boxes = torch.tensor([[quarter, quarter, 3 * quarter, 3 * quarter]], device=device)
    wanted = _needs_gradients(method, settings)
    with torch.set_grad_enabled(wanted):
        image.requires_grad_(wanted)
        try:
            loss = detector.loss(image, [Targets(boxes, whole)] * 2)
        except Exception as error:  # whatever the user's own code raises
            logger.debug("detector %s: loss", detector.name, exc_info=error)
            reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".rstrip(": ")
            raise UsageError(
                f"detector {detector.name}: its loss fails on a trial batch of {size}x{size} pixels ({reason}); "
                "correct it, or choose another --size; -v shows where"
            ) from error
        if not isinstance(loss, torch.Tensor) or loss.shape != (2,) or not bool(loss.isfinite().all()):
            what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise UsageError(
                f"detector {detector.name}: its loss must be a tensor of one finite number for each image, of shape "
                f"(2,) for a trial batch of 2; it returned {what}"
            )
        if not wanted:
            return
        if not loss.requires_grad:
            raise _no_gradient(method, detector, "what its loss returns does not depend on the image's pixels")
        (gradient,) = torch.autograd.grad(loss.sum(), image, allow_unused=True)
    if gradient is None:
        raise _no_gradient(method, detector, "what its loss returns does not depend on the image's pixels")
    if not bool(gradient.any()):
        logger.warning(
            "detector %s: the gradient of its loss is 0 on a trial batch; a run may learn nothing", detector.name
        )


def _needs_gradients(method: str, settings: Any) -> bool:
    explores = getattr(settings, "exploration", 0) > 0 or not getattr(settings, "sets_parameters", True)
    return find_method(method).needs_gradients and not explores


def _no_gradient(method: str, detector: Detector, reason: str) -> UsageError:
    others = ", ".join(name for name, other in METHODS.items() if not other.needs_gradients)
    return UsageError(
        f"method {method}: needs the gradient of the detector's loss, and {detector.name} has none ({reason}); "
        f"choose a method that needs none ({others}, or sequence with preset sampled), or another detector"
    )


def open_training_images(
    options: TrainConfig, settings: Any, detector: Detector, teacher: PseudoLabeler | None = None
) -> TrainingImages:
    """The training images, labelled by their annotations or by a teacher.

    Raises:
        DataError: they or their labels cannot be used.
        UsageError: the options contradict each other.
    """

    def to_label(categories: dict[int, str]) -> dict[int, int]:
        if teacher is not None:  # its classes are the labels themselves
            return {label: label for label in range(len(detector.class_names))}
        mapped = map_classes(detector.class_names, categories, where=f"{data} with {detector.name}")
        if mapped.unmatched:
            logger.warning("%s: classes that %s does not know: %s", data, detector.name, first_few(mapped.unmatched))
        return mapped.category_to_label

    data, images = Path(options.data), Path(options.images) if options.images else None
    if options.light is None:
        open_raws = open_dataset if teacher is None else open_unlabelled
        raws = open_raws(data, images, limit=options.limit)
        cache = open_cache(options.cache)
        how_raws = {"teacher": teacher, "cache": cache, "smallest_crop": settings.smallest_crop}
        return RawTrainingImages(raws, to_label, settings.size, options.seed, **how_raws)
    if is_set_file(data):
        raise UsageError(f"{data}: its images are raws; leave out --light, or give --light none if --config has one")
    if os.path.isdir(data):
        if teacher is None:
            remedy = "leave out --light, or give --light none if --config has one; "
            remedy += "photos without labels need --labels teacher"
            raise UsageError(f"{data}: a folder holds raws, --light needs a COCO JSON of photos; {remedy}")
        images = data
    if images is None:
        if teacher is not None and not os.path.exists(data):
            raise DataError(f"{data}: no such file or folder; give a folder of photos, or a COCO JSON and --images")
        raise UsageError(f"{data}: --light needs a COCO JSON of photos and their folder: add --images")
    where = (data, images, to_label, settings.size)
    synthesis = SynthesisConfig(options.light, noise=options.noise, seed=options.seed)
    return PhotoTrainingImages(*where, synthesis, options.limit, teacher, settings.smallest_crop)


def open_teacher(options: TrainConfig, detector: Detector, device: str) -> Teacher | None:
    """What stands in for annotations, None where they are taken."""
    return Teacher(detector, options.teacher_confidence, device) if options.labels == "teacher" else None


def open_dev(options: TrainConfig) -> Dataset | None:
    """The data set that chooses the best policy, None where there is none.

    Raises:
        DataError: it cannot be used, or has no annotations: a teacher that scored its own pupil would prefer the policy
            which repeats its mistakes.
        UsageError: the options contradict each other.
    """
    if not options.dev:
        return None
    # Without --dev-images it is the folder of the training images, which a data-set YAML has no use for.
    images = Path(options.dev_images) if options.dev_images and not is_set_file(Path(options.dev)) else None
    remedy = "dev needs annotations, whatever --labels says; give a labelled set, or leave out --dev"
    try:
        light = options.light
        synthesis = SynthesisConfig(light, options.dev_draws, options.noise) if light is not None else None
        dataset = open_dataset(Path(options.dev), images, synthesis)
    except (DataError, UsageError) as error:
        if options.labels == "given":
            raise
        raise type(error)(f"{error}; {remedy}") from error
    if reason := why_nothing((sample.annotations for sample in dataset.samples), dataset.categories):
        raise DataError(f"{options.dev}: has no annotations to score ({reason}); {remedy}")
    for note in notes_of(dataset):
        logger.warning("%s: %s", dataset.name, note)
    return dataset
