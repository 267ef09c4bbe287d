"""Opens the images of a training run, the teacher that labels them, and the dev set."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from adaptiveisp.data.annotation_checks import why_nothing
from adaptiveisp.data.frame_cache import open_cache
from adaptiveisp.data.joined_images import JoinedTrainingImages, seed_of
from adaptiveisp.data.opening import Dataset, is_set_file, notes_of, open_dataset, open_unlabelled
from adaptiveisp.data.raw_frames import RawFrameTrainingImages
from adaptiveisp.data.sources import Source, names_of, needs_images, sources_of
from adaptiveisp.data.synthetic import SynthesisConfig, SyntheticRaws
from adaptiveisp.data.training_images import PhotoTrainingImages, RawTrainingImages, TrainingImages
from adaptiveisp.detectors.class_names import map_classes
from adaptiveisp.errors import DataError, UsageError, first_few, logger
from adaptiveisp.training.config import TrainConfig
from adaptiveisp.training.pseudo_labels import Teacher
from adaptiveisp.training.trial_parts import own_modules
from adaptiveisp.types import Detector, PseudoLabeler
from adaptiveisp.utils import defaults
from adaptiveisp.utils.config import require

PHOTO_WEIGHTS = ("colour_weight", "highlight_weight")
"""Settings of methods whose term of the loss or reward needs the clean photo."""


def open_training_images(
    options: TrainConfig, settings: Any, detector: Detector, teacher: PseudoLabeler | None = None
) -> TrainingImages:
    """The training images of all data sets, labelled by their annotations or by a teacher.

    Raises:
        DataError: they or their labels cannot be used.
        UsageError: the options contradict each other.
    """
    sources = sources_of(options.data, options.images or None)
    _require_photos(options, settings)
    if len(sources) == 1:
        return _open_source(sources[0], options, settings, detector, teacher)
    parts = [
        _open_source(source, replace(options, seed=seed_of(options.seed, index)), settings, detector, teacher, name)
        for index, (source, name) in enumerate(zip(sources, names_of(sources), strict=True))
    ]
    return JoinedTrainingImages(parts, options.seed)


def _require_photos(options: TrainConfig, settings: Any) -> None:
    """Refuses penalties that compare with the clean photo where there is none.

    Raises:
        UsageError: the images are raws, and a weight of such a penalty is not 0.
    """
    for name in PHOTO_WEIGHTS:
        if options.light is None and getattr(settings, name, None):
            raise UsageError(
                f"{name} compares with the photos that raws are made of, and these images are raws; "
                f"set {name}=0, or give photos and --light"
            )


def _open_source(
    source: Source,
    options: TrainConfig,
    settings: Any,
    detector: Detector,
    teacher: PseudoLabeler | None,
    name: str = "",
) -> PhotoTrainingImages | RawTrainingImages | RawFrameTrainingImages:
    """The training images of one data set.

    Args:
        source: what it is opened from.
        options: of the run, with the seed of this data set.
        settings, detector, teacher: as for `open_training_images`.
        name: short name of the data set if there are several, "" otherwise.

    Raises:
        DataError: they or their labels cannot be used.
        UsageError: the options contradict each other.
    """
    data, images = Path(str(source.data)), Path(source.images) if source.images else None

    def to_label(categories: dict[int, str]) -> dict[int, int]:
        if teacher is not None:  # the categories are the detector's own labels
            return {label: label for label in range(len(detector.class_names))}
        mapped = map_classes(detector.class_names, categories, where=f"{data} with {detector.name}")
        if mapped.unmatched:
            logger.warning("%s: classes that %s does not know: %s", data, detector.name, first_few(mapped.unmatched))
        return mapped.category_to_label

    develops = external_isps(settings)
    require(not develops or teacher is None, "an external ISP learns from labelled raws; leave out --labels teacher")
    how: dict[str, Any] = {"smallest_crop": settings.smallest_crop, "prefix": f"{name}: " if name else ""}
    if options.light is None:
        open_raws = open_dataset if teacher is None else open_unlabelled
        raws = open_raws(data, images, limit=options.limit)
        if develops:
            return RawFrameTrainingImages(raws, to_label, settings.size, options.seed, **how)
        how |= {"teacher": teacher, "cache": open_cache(options.cache)}
        return RawTrainingImages(raws, to_label, settings.size, options.seed, **how)
    images = _photo_folder(data, images, teacher)
    synthesis = SynthesisConfig(options.light, seed=options.seed, **_sensor(options))
    if develops:
        mosaics = SyntheticRaws(data, images, replace(synthesis, draws=1, format="dng"), options.limit)
        return RawFrameTrainingImages(mosaics, to_label, settings.size, options.seed, **how)
    return PhotoTrainingImages(data, images, to_label, settings.size, synthesis, options.limit, teacher, **how)


def _sensor(options: TrainConfig) -> dict[str, Any]:
    """The fields of `SynthesisConfig` that describe the sensor of raws that are made of photos."""
    return {name: getattr(options, name) for name in ("noise", "bits", "camera_matrix", "illuminants")}


def _photo_folder(data: Path, images: Path | None, teacher: PseudoLabeler | None) -> Path:
    """The folder of the photos of a data set that `--light` makes raws of.

    Raises:
        DataError: the data set does not exist.
        UsageError: it holds raws, or its folder of photos is missing.
    """
    if is_set_file(data):
        raise UsageError(f"{data}: its images are raws; leave out --light, or give --light none if --config has one")
    if os.path.isdir(data):
        if teacher is None:
            remedy = "leave out --light, or give --light none if --config has one; "
            remedy += "photos without labels need --labels teacher"
            raise UsageError(f"{data}: a folder holds raws, --light needs a COCO JSON of photos; {remedy}")
        return data
    if images is None:
        if teacher is not None and not os.path.exists(data):
            raise DataError(f"{data}: no such file or folder; give a folder of photos, or a COCO JSON and --images")
        raise UsageError(f"{data}: --light needs a COCO JSON of photos and their folder: add --images")
    return images


def open_teacher(options: TrainConfig, detector: Detector, device: str) -> Teacher | None:
    """The teacher that labels the training images; None if they have annotations."""
    if options.labels == "given":
        return None
    return Teacher(detector, options.teacher_confidence, device, options.dev_size)


def external_isps(settings: Any) -> list[str]:
    """Names of the external ISPs among the modules of a method's settings.

    Raises:
        UsageError: a preprocessing would come before them, which has no effect on what they develop.
    """
    names = [module.name for module in own_modules(settings) if module.external is not None]
    first = getattr(settings, "preprocessing", "raw")
    require(
        not names or first == "raw",
        f"{', '.join(names)} develops the raw itself, on which the preprocessing {first} has no effect; set "
        "preprocessing=raw",
    )
    return names


def open_dev(options: TrainConfig, mosaics: bool = False) -> dict[str, Dataset]:
    """Name → data set whose score selects the best policy; of several it is the mean of their scores. Empty for none.

    Args:
        options: of the run.
        mosaics: whether raws made of photos are mosaics, as external ISPs need them, instead of RGB.

    Raises:
        DataError: one cannot be used, or has no annotations. A teacher's labels would prefer the policy that repeats
            the teacher's mistakes.
        UsageError: the options contradict each other.
    """
    if not options.dev:
        return {}
    # Without --dev-images it is the folder of the training images, which data sets other than COCO JSONs do not use.
    listed = [options.dev] if isinstance(options.dev, str) else options.dev
    images = options.dev_images if any(needs_images(one) for one in listed) else None
    sources = sources_of(options.dev, images or None, "dev_images")
    pairs = zip(names_of(sources), sources, strict=True)
    return {name: _open_dev_set(source, options, mosaics) for name, source in pairs}


def _open_dev_set(source: Source, options: TrainConfig, mosaics: bool) -> Dataset:
    """One data set of dev; raises as `open_dev` does."""
    data, images = Path(str(source.data)), Path(source.images) if source.images else None
    remedy = "dev needs annotations, whatever --labels says; give a labelled set, or leave out --dev"
    try:
        light = options.light
        how = {**_sensor(options), "format": "dng" if mosaics else defaults.RAW_FORMAT}
        synthesis = SynthesisConfig(light, options.dev_draws, **how) if light is not None else None
        dataset = open_dataset(data, images, synthesis)
    except (DataError, UsageError) as error:
        if options.labels == "given":
            raise
        raise type(error)(f"{error}; {remedy}") from error
    if reason := why_nothing((sample.annotations for sample in dataset.samples), dataset.categories):
        raise DataError(f"{source.data}: has no annotations to score ({reason}); {remedy}")
    for note in notes_of(dataset):
        logger.warning("%s: %s", dataset.name, note)
    return dataset
