"""Opens the images of a training run, the teacher that labels them, and the dev set."""

import os
from pathlib import Path
from typing import Any

from adaptiveisp.data.annotation_checks import why_nothing
from adaptiveisp.data.frame_cache import open_cache
from adaptiveisp.data.opening import Dataset, is_set_file, notes_of, open_dataset, open_unlabelled
from adaptiveisp.data.synthetic import SynthesisConfig
from adaptiveisp.data.training_images import PhotoTrainingImages, RawTrainingImages, TrainingImages
from adaptiveisp.detectors.class_names import map_classes
from adaptiveisp.errors import DataError, UsageError, first_few, logger
from adaptiveisp.training.config import TrainConfig
from adaptiveisp.training.pseudo_labels import Teacher
from adaptiveisp.types import Detector, PseudoLabeler


def open_training_images(
    options: TrainConfig, settings: Any, detector: Detector, teacher: PseudoLabeler | None = None
) -> TrainingImages:
    """The training images, labelled by their annotations or by a teacher.

    Raises:
        DataError: they or their labels cannot be used.
        UsageError: the options contradict each other.
    """

    def to_label(categories: dict[int, str]) -> dict[int, int]:
        if teacher is not None:  # the categories are the detector's own labels
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
    """The teacher that labels the training images; None if they have annotations."""
    if options.labels == "given":
        return None
    return Teacher(detector, options.teacher_confidence, device, options.dev_size)


def open_dev(options: TrainConfig) -> Dataset | None:
    """The data set whose score selects the best policy; None without one.

    Raises:
        DataError: it cannot be used, or has no annotations. A teacher's labels would prefer the policy that repeats the
            teacher's mistakes.
        UsageError: the options contradict each other.
    """
    if not options.dev:
        return None
    # Without --dev-images it is the folder of the training images, which a data-set YAML does not use.
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
