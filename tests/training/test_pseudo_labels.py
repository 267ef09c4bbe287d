"""Training without annotations: the detector's own detections in the place of labels."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image as PilImage
from torch import Tensor

from adaptiveisp.cli.parser import main
from adaptiveisp.data.formats.folder import load_photos
from adaptiveisp.data.opening import FolderRaws, open_dataset, open_unlabelled
from adaptiveisp.data.synthesize import synthesize_set
from adaptiveisp.data.synthetic import SynthesisConfig, read_photo
from adaptiveisp.data.training_images import PhotoTrainingImages, RawTrainingImages
from adaptiveisp.detectors.boxes import pairwise_iou
from adaptiveisp.detectors.class_names import COCO_80, map_classes
from adaptiveisp.errors import DataError, DetectorError
from adaptiveisp.inference.detection import detect
from adaptiveisp.training.methods.actor_critic.learner import ActorCritic
from adaptiveisp.training.methods.fixed import Fixed
from adaptiveisp.training.pseudo_labels import EXPOSURES, Teacher, best_of, renderings
from adaptiveisp.types import Annotation, Detections, Image
from tests.conftest import REPOSITORY
from tests.support.fake_detector import RedDetector
from tests.support.photos import CATEGORIES, labelled_photos

RED = "tests.support.fake_detector:load"
CUP = COCO_80.index("cup")


@pytest.fixture(autouse=True)
def quiet_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    monkeypatch.chdir(tmp_path)


def own_labels(categories: dict[int, str]) -> dict[int, int]:
    return {label: label for label in range(len(COCO_80))}


def known_classes(categories: dict[int, str]) -> dict[int, int]:
    return map_classes(COCO_80, categories).category_to_label


def write_labels(path: Path, answers: Sequence[tuple[int, Sequence[Annotation]]]) -> None:
    """Replaces the annotations of a COCO JSON by cups: (image id, objects)."""
    content = json.loads(path.read_text())
    cups = [
        {"image_id": image_id, "category_id": 47, "bbox": a.bbox, "area": a.area, "iscrowd": 0}
        for image_id, objects in answers
        for a in objects
    ]
    content["annotations"] = [{"id": i, **cup} for i, cup in enumerate(cups, 1)]
    path.write_text(json.dumps(content))


# what is found in photos


def test_a_photo_without_annotations_is_labelled_where_its_red_box_is(tmp_path: Path) -> None:
    """In every crop and mirror image the target is what is red there, and is where the maker of the photo says."""
    labels = labelled_photos(tmp_path, n=3, width=96, height=64)
    folder = tmp_path / "images"
    mirrored, shown = set(), 0
    for seed in range(12):
        synthesis = SynthesisConfig("normal", noise="none", seed=seed)
        taught = PhotoTrainingImages(folder, folder, own_labels, 64, synthesis, teacher=Teacher(RedDetector(), 0.5))
        given = PhotoTrainingImages(labels, folder, known_classes, 64, synthesis)
        for number in range(3):
            item, known = taught[number], given[number].targets
            assert torch.equal(item.image, given[number].image)
            assert item.targets.labels.tolist() == known.labels.tolist() == [CUP] * len(known.labels)
            assert torch.allclose(item.targets.boxes, known.boxes, atol=1.5)
            redness = item.image[0] / item.image.amax(dim=0) - item.image[1] / item.image.amax(dim=0)
            for x0, y0, x1, y1 in item.targets.boxes.round().int().tolist():
                inside = torch.zeros(64, 64, dtype=torch.bool)
                inside[y0:y1, x0:x1] = True
                assert redness[inside].mean() > redness[~inside].mean() + 0.2
                shown += 1
                mirrored.add(x0 + x1 > 64)
    assert shown > 20 and mirrored == {False, True}


def test_targets_are_those_of_an_annotation_that_equals_the_detection(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path, n=3, width=90, height=70)
    teacher = Teacher(RedDetector(), 0.5)
    for i in (1, 2, 3):
        photo = (read_photo(tmp_path / "images" / f"photo{i}.png") * 255).round().to(torch.uint8)
        teacher.label_photo(f"photo{i}.png", photo)
    write_labels(labels, [(10 * i, teacher.answers[f"photo{i}.png"]) for i in (1, 2, 3)])
    given = PhotoTrainingImages(labels, tmp_path / "images", known_classes, 48, SynthesisConfig("mixed", seed=7))
    taught = PhotoTrainingImages(
        labels, tmp_path / "images", own_labels, 48, SynthesisConfig("mixed", seed=7), teacher=teacher
    )
    for number in range(24):
        a, b = given[number], taught[number]
        assert torch.equal(a.image, b.image) and torch.equal(a.targets.labels, b.targets.labels)
        assert torch.equal(a.targets.boxes, b.targets.boxes)
    assert sum(len(taught[number].targets.labels) for number in range(24)) > 12


def test_raws_are_labelled_as_an_annotation_that_equals_the_detection_would(tmp_path: Path) -> None:
    """Of a folder made by `synth`: its annotations are not looked at; the frame in memory is smaller than the raw."""
    labels = labelled_photos(tmp_path, n=3, width=170, height=96)
    synthesize_set(labels, tmp_path / "images", tmp_path / "out", SynthesisConfig("normal", noise="none"), {})
    folder = tmp_path / "out" / "normal"
    teacher = Teacher(RedDetector(), 0.2)
    raws = open_unlabelled(folder)
    taught = RawTrainingImages(raws, own_labels, 48, seed=3, teacher=teacher)
    items = [taught[number] for number in range(9)]
    content = json.loads((folder / "labels.json").read_text())
    by_name = {entry["file_name"]: entry["id"] for entry in content["images"]}
    write_labels(
        folder / "labels.json",
        [(by_name[s.name], teacher.answers[f"{s.name} (draw {s.draw})"]) for s in raws.samples],
    )
    given = RawTrainingImages(open_dataset(folder), known_classes, 48, seed=3)
    for item in items:
        targets = given[item.number].targets
        assert torch.equal(item.image, given[item.number].image)
        assert torch.equal(item.targets.boxes, targets.boxes) and torch.equal(item.targets.labels, targets.labels)
    assert sum(len(item.targets.labels) for item in items) > 5
    plain = RawTrainingImages(FolderRaws(folder), own_labels, 48, seed=3, teacher=Teacher(RedDetector(), 0.2))
    for item in items:  # nobody tells the sizes of these files
        assert torch.equal(plain[item.number].targets.boxes, item.targets.boxes)


def test_each_picture_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled_photos(tmp_path, n=3)
    monkeypatch.setattr("adaptiveisp.data.training_images.CACHED_BYTES", 0)  # each is read again and again
    folder, teacher = tmp_path / "images", Teacher(RedDetector(), 0.5)
    photos = PhotoTrainingImages(folder, folder, own_labels, 32, SynthesisConfig("normal"), teacher=teacher)
    assert teacher.passes == 1  # enough to know that there is something to learn
    for number in range(12):
        photos[number]
    assert teacher.passes == 3 and set(teacher.answers) == {"photo1.png", "photo2.png", "photo3.png"}


def test_a_teacher_takes_up_what_it_knew() -> None:
    first, again = Teacher(RedDetector(), 0.5), Teacher(RedDetector(), 0.5)
    photo = torch.zeros(3, 40, 60, dtype=torch.uint8)
    photo[0, 10:21, 12:35] = 200
    first.label_photo("a", photo)
    first.label_photo("b", torch.zeros_like(photo))
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert again.answers == first.answers and again.passes == first.passes == 2 and again.found_nothing == 1
    ((found,),) = [answer for answer in again.answers.values() if answer]
    assert found.category_id == CUP and found.bbox == pytest.approx((12, 10, 23, 11), abs=0.5)
    assert found.area == pytest.approx(23 * 11, rel=0.1)


# the best exposure


class BrightnessDetector(RedDetector):
    """Sees a cup in images around a mean, the surer the closer to it."""

    def __init__(self, mean: float):
        self.mean = mean

    def detect(
        self, image: Image, confidence: float = 0.001, nms_iou: float = 0.6, max_detections: int = 300
    ) -> list[Detections]:
        found = []
        for single in image:
            top = (single.shape[1] - round(single.shape[1] * 3 / 4)) // 2  # of a frame of 4:3
            brightness = single[:, top:-top].mean()
            score = (1 - 4 * (brightness - self.mean).abs()).clamp(0.01, 1).reshape(1)
            box = torch.tensor([[0.0, 0.0, 400 * float(brightness), 400.0]])
            sure = score >= confidence
            found.append(Detections(box[sure], score[sure], torch.tensor([CUP])[sure]))
        return found


def scene(background: float, box: tuple[float, float, float]) -> Tensor:
    """A dark raw of a grey scene with a small coloured box at (20, 16) to (28, 24), of 64x48 pixels."""
    ramp = torch.linspace(0.8, 1.2, 64) * background
    picture = ramp.expand(3, 48, 64).clone()
    picture[:, 16:24, 20:28] = torch.tensor(box)[:, None, None]
    return picture


def test_renderings_differ_in_stops() -> None:
    """Twice the light a stop, below the sRGB curve, as long as nothing is clipped."""
    images = renderings(scene(0.004, (0.004, 0.004, 0.004))[None], None)
    linear = [((image + 0.055) / 1.055) ** 2.4 for image in images]
    for image, stops in zip(linear[:3], EXPOSURES, strict=False):
        assert float(image.mean() / linear[0].mean()) == pytest.approx(2**stops, rel=0.02)
    assert float(linear[0].mean()) == pytest.approx(0.18, abs=0.005)
    assert len(images) == 4 and len(renderings(scene(0.004, (0.004,) * 3)[None], (2.0, 1.0, 1.5))) == 5


@pytest.mark.parametrize("wanted", range(len(EXPOSURES)))
def test_the_exposure_that_shows_most_is_taken(wanted: int) -> None:
    full = scene(0.004, (0.004, 0.004, 0.004))
    brightness = [float(image.mean()) for image in renderings(full[None], None)]
    teacher = Teacher(BrightnessDetector(brightness[wanted]), 0.5)
    teacher.label_raw("raw", full, None)
    (found,) = teacher.answers["raw"]
    assert found.bbox[2] == pytest.approx(400 * brightness[wanted] * 64 / 416, rel=0.05)
    assert teacher.passes == len(EXPOSURES)


def test_what_lies_in_the_shadow_of_a_dark_raw_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    full = scene(0.01, (0.0014, 0.0004, 0.0004))  # far below the mean that auto-exposure aims at
    teacher = Teacher(RedDetector(), 0.14)
    teacher.label_raw("raw", full, None)
    (found,) = teacher.answers["raw"]
    assert found.bbox == pytest.approx((20, 16, 8, 8), abs=1)
    monkeypatch.setattr("adaptiveisp.training.pseudo_labels.EXPOSURES", (0.0,))
    plain = Teacher(RedDetector(), 0.14)
    plain.label_raw("raw", full, None)
    assert plain.answers["raw"] == ()


def test_the_camera_knows_the_colour_that_the_grey_world_takes_away() -> None:
    """A frame that is red all over; the camera says that its light was white."""
    red = torch.full((3, 48, 64), 0.01)
    red[0] = 0.03
    for gains, n in ((None, 0), ((1.0, 1.0, 1.0), 1)):
        teacher = Teacher(RedDetector(), 0.15)
        teacher.label_raw("raw", red, gains)
        assert len(teacher.answers["raw"]) == n
    assert teacher.passes == len(EXPOSURES) + 1


def test_the_cameras_gains_make_its_white_grey() -> None:
    gains = (2.0, 1.0, 1.5)
    grey = torch.tensor([0.03 / gain for gain in gains])[:, None, None].expand(3, 48, 64)
    image = renderings(grey[None], gains)[-1]
    assert torch.allclose(image[0, 0], image[0, 1]) and torch.allclose(image[0, 2], image[0, 1])
    assert float(((image.mean() + 0.055) / 1.055) ** 2.4) == pytest.approx(0.18, abs=0.005)


def detections(*scores: float) -> Detections:
    n = len(scores)
    return Detections(torch.zeros(n, 4), torch.tensor(scores), torch.zeros(n, dtype=torch.long))


def test_the_largest_sum_of_scores_is_best_and_the_first_of_equals() -> None:
    found = [detections(0.9), detections(0.6, 0.5), detections(), detections(0.5, 0.6)]
    assert best_of(found) is found[1]
    assert best_of([found[2], detections()]) is found[2]
    many, sure = detections(0.3, 0.3, 0.3, 0.3), detections(0.8, 0.7)
    assert best_of([many, sure]) is sure and best_of([detections(0.9), sure]) is sure


# which files


def test_photos_of_a_folder(tmp_path: Path) -> None:
    for name in ("b/two.JPG", "a.png", ".hidden.png", "notes.txt", "b/.c/three.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    photos = load_photos(tmp_path / "photos")
    assert [image.file_name for image in photos.images] == ["a.png", "b/two.JPG"]
    assert all(image.annotations == () for image in photos.images)


def test_a_coco_json_needs_neither_annotations_nor_classes(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path)
    images = json.loads(labels.read_text())["images"]
    labels.write_text(json.dumps({"images": images}))
    assert [image.id for image in load_photos(labels).images] == [10, 20, 30]
    assert [sample.name for sample in open_unlabelled(labels, tmp_path / "images", limit=2).samples] == [
        "photo1.png",
        "photo2.png",
    ]


# from the command line


def adaptiveisp(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


FIXED = ("--method", "fixed", "--set", "modules=[exposure, gamma]", "--set", "initial={}", "--size", 64)
SMALL = (
    "--size",
    64,
    *(f"--set={change}" for change in ("replay_size=16", "horizon=3", "rollout=3", "expert_modules=[gamma]")),
)
PHOTOS = ("--data", "images", "--light", "mixed", "--labels", "teacher")


def train(out: str, *arguments: object) -> int:
    return adaptiveisp("train", "--out", out, "--detector", RED, "--threads", 1, "-q", *arguments)


def grey_photo(path: Path) -> None:
    PilImage.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(path)


def test_a_folder_of_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One iteration; the photo in which there is nothing is trained on too, and counted."""
    labelled_photos(tmp_path, n=3)
    grey_photo(tmp_path / "images" / "grey.png")
    command = ("train", "--out", "run", "--detector", RED, "--threads", 1, *FIXED, *PHOTOS)
    assert adaptiveisp(*command, "--budget", 8) == 0
    assert "teacher: 4 images in 4 passes of its own, nothing found in 1 of them" in capsys.readouterr().out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["iterations"], summary["passes"]) == (1, 8)
    assert [summary[f"teacher_{key}"] for key in ("passes", "images", "found_nothing_in")] == [4, 4, 1]
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]
    assert config["labels"] == "teacher" and config["teacher_confidence"] == 0.5
    assert train("again", "--config", "run/config.yaml") == 0
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == (tmp_path / "run" / "metrics.jsonl").read_bytes()


def test_a_coco_json_without_annotations_and_with_dev(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path)
    (tmp_path / "unlabelled.json").write_text(json.dumps({"images": json.loads(labels.read_text())["images"]}))
    data = ("--data", "unlabelled.json", "--images", "images", "--light", "normal", "--labels", "teacher")
    assert train("run", *data, *FIXED, "--budget", 8, "--dev", "labels.json") == 0
    assert json.loads((tmp_path / "run" / "dev.jsonl").read_text().splitlines()[-1])["ap50"] >= 0


def test_a_folder_of_raws(tmp_path: Path) -> None:
    """Without --light and without labels; the damaged one is skipped and reported."""
    labelled_photos(tmp_path, n=3)
    light = ("--data", "labels.json", "--images", "images", "--light", "normal", "--noise", "none")
    assert adaptiveisp("synth", *light, "--format", "dng", "--out", "set", "-q") == 0
    (tmp_path / "raws" / "deep").mkdir(parents=True)
    for raw in (tmp_path / "set" / "normal" / "images").glob("*.dng"):
        raw.rename(tmp_path / "raws" / "deep" / raw.name)
    (tmp_path / "raws" / "broken.dng").write_bytes(b"no raw")
    (tmp_path / "low.yaml").write_text("train: {teacher_confidence: 0.2}\n")
    arguments = ("--config", "low.yaml", "--data", "raws", "--labels", "teacher", *FIXED)
    assert train("run", *arguments, "--budget", 8) == 3
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary["skipped"]) == ["broken.dng (draw 0)"]
    # The DNGs know their white balance: one rendering more than there are exposures.
    assert summary["teacher_passes"] == 3 * (len(EXPOSURES) + 1) and summary["teacher_images"] == 3
    assert summary["teacher_found_nothing_in"] < 3


@pytest.mark.parametrize("method", [FIXED, pytest.param(SMALL, marks=pytest.mark.long)], ids=["fixed", "actor_critic"])
def test_resumed_equals_uninterrupted(
    method: Sequence[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled_photos(tmp_path, n=9)
    grey_photo(tmp_path / "images" / "grey.png")
    arguments = (*PHOTOS, *method, "--budget", 48, "--seed", 4, "--checkpoint-every", 2)
    assert train("whole", *arguments) == 0
    with monkeypatch.context() as cut:
        for kind in (Fixed, ActorCritic):
            iterate = kind.iterate

            def stopped(self, iterate=iterate):  # type: ignore[no-untyped-def]
                if self.iteration == 3:
                    raise KeyboardInterrupt
                return iterate(self)

            cut.setattr(kind, "iterate", stopped)
        assert train("cut", *arguments) == 130
    looks: list[int] = []

    def counted(*arguments: object) -> list[Detections]:
        looks.append(1)
        return detect(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("adaptiveisp.training.pseudo_labels.detect", counted)
    assert adaptiveisp("train", "--resume", "cut", "--detector", RED, "--threads", 1, "-q") == 0
    assert len(looks) == 1  # whether there is anything to learn; all pictures were looked at before the stop
    whole, cut_ = (tmp_path / name for name in ("whole", "cut"))
    assert (whole / "metrics.jsonl").read_bytes() == (cut_ / "metrics.jsonl").read_bytes()
    policies = [path.name for path in whole.glob("latest.*") if path.suffix != ".pt"]
    assert len(policies) == 1
    if policies == ["latest.safetensors"]:
        assert (whole / policies[0]).read_bytes() == (cut_ / policies[0]).read_bytes()
    summaries = [json.loads((run / "summary.json").read_text()) for run in (whole, cut_)]
    for key in ("teacher_passes", "teacher_images", "teacher_found_nothing_in"):
        assert summaries[0][key] == summaries[1][key]
    assert summaries[0]["teacher_found_nothing_in"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "fragments"),
    [
        (("--data", "empty", "--light", "mixed"), 1, ("no photos in it", "leave out --light")),
        (("--data", "empty"), 1, ("no raw files in", "add --light")),
        (("--data", "nowhere"), 1, ("nowhere", "no such file or folder")),
        (("--data", "nowhere", "--light", "mixed"), 1, ("nowhere", "no such file")),
        (
            ("--data", "grey", "--light", "mixed"),
            1,
            ("finds no object with a score of", "lower teacher_confidence"),
        ),
        (("--data", "labels.json"), 2, ("--images",)),
        (("--data", "labels.json", "--light", "mixed"), 2, ("--images",)),
        (("--data", "images", "--light", "mixed", "--dev", "images"), 2, ("leave out --dev",)),
        (
            ("--data", "images", "--light", "mixed", "--dev", "none.json", "--dev-images", "images"),
            1,
            ("no annotations", "leave out --dev"),
        ),
        (("--config", "zero.yaml", "--data", "images", "--light", "mixed"), 2, ("teacher_confidence",)),
        (("--data", "images", "--light", "mixed", "--labels", "given"), 2, ("--labels teacher",)),
        (
            ("--data", "none.json", "--images", "images", "--light", "mixed", "--labels", "given"),
            1,
            ("no labelled object", "--labels teacher"),
        ),
    ],
)
def test_errors_name_the_remedy(
    arguments: Sequence[str], code: int, fragments: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = labelled_photos(tmp_path)
    for name in ("empty", "grey"):
        (tmp_path / name).mkdir()
    grey_photo(tmp_path / "grey" / "grey.png")
    images = json.loads(labels.read_text())["images"]
    content = {"images": images, "annotations": [], "categories": CATEGORIES}
    (tmp_path / "none.json").write_text(json.dumps(content))
    (tmp_path / "zero.yaml").write_text("train: {teacher_confidence: 0}\n")
    assert train("run", "--labels", "teacher", *FIXED, *arguments) == code
    error = capsys.readouterr().err
    assert "Traceback" not in error and not (tmp_path / "run").exists()
    for fragment in fragments:
        assert fragment in error, error


def test_a_detector_that_makes_no_sense_is_no_fault_of_the_photos(tmp_path: Path) -> None:
    class Nonsense(RedDetector):
        def _one(self, image: Tensor, confidence: float) -> Detections:
            return replace(super()._one(image, confidence), labels=torch.tensor([80]))

    labelled_photos(tmp_path)
    folder = tmp_path / "images"
    with pytest.raises(DetectorError, match="unknown label"):
        PhotoTrainingImages(folder, folder, own_labels, 32, SynthesisConfig("normal"), teacher=Teacher(Nonsense(), 0.1))


def test_a_folder_without_a_usable_photo_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"no photo")
    with pytest.raises(DataError, match="no image could be used"):
        PhotoTrainingImages(
            *(tmp_path / "photos", tmp_path / "photos", own_labels, 32, SynthesisConfig("normal")),
            teacher=Teacher(RedDetector(), 0.1),
        )


def test_boxes_are_those_of_the_full_frame() -> None:
    """Of a wide photo, which lies between two bands of grey in what the detector gets."""
    photo = torch.zeros(3, 30, 100, dtype=torch.uint8)
    photo[0, 6:18, 70:100] = 220
    teacher = Teacher(RedDetector(), 0.5)
    teacher.label_photo("wide", photo)
    (found,) = teacher.answers["wide"]
    x, y, width, height = found.bbox
    box = torch.tensor([[x, y, x + width, y + height]])
    assert float(pairwise_iou(box, torch.tensor([[70.0, 6.0, 100.0, 18.0]]))) > 0.93
    assert x + width <= 100 and y + height <= 30
