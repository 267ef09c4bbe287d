"""Training on several data sets, with a dev score that is the mean over several."""

import json
from pathlib import Path
from statistics import fmean

import pytest
import yaml

from adaptiveisp.cli.exit_codes import INTERRUPTED, WRONG_USE
from adaptiveisp.data.joined_images import JoinedTrainingImages
from adaptiveisp.errors import UsageError
from adaptiveisp.training.config import TrainConfig, completed, data_digest, make_settings, resolve
from adaptiveisp.training.inputs import open_dev, open_teacher, open_training_images
from tests.support.fake_detector import RedDetector
from tests.support.photos import labelled_photos
from tests.support.training_runs import QUICK, RED, adaptiveisp, metrics

pytestmark = pytest.mark.usefixtures("quiet_place", "without_figures")

DATA = ("--data", "one/labels.json", "two/labels.json", "--images", "one/images", "two/images")
HOW = ("--light", "mixed", "--size", 64, "--dev-size", 64, "--detector", RED, "--threads", 1, "-q", *QUICK)


@pytest.fixture(autouse=True)
def two_sets(tmp_path: Path) -> None:
    labelled_photos(tmp_path / "one", n=2)
    labelled_photos(tmp_path / "two", n=3, width=96)


def test_a_run_learns_from_both_and_is_chosen_by_their_mean(tmp_path: Path) -> None:
    dev = ("--dev", "one/labels.json", "two/labels.json", "--dev-every", 2)
    assert adaptiveisp("train", *DATA, *dev, *HOW, "--budget", 40, "--out", "run") == 0
    train = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]
    assert train["data"] == train["dev"] == [str(tmp_path / name / "labels.json") for name in ("one", "two")]
    assert train["images"] == train["dev_images"] == [str(tmp_path / name / "images") for name in ("one", "two")]
    lines = [json.loads(line) for line in (tmp_path / "run" / "dev.jsonl").read_text().splitlines()]
    for line in lines:
        assert list(line["ap50_of_sets"]) == ["one/labels", "two/labels"]
        assert line["ap50"] == pytest.approx(fmean(line["ap50_of_sets"].values()))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["best_ap50_on_dev"] == max(line["ap50"] for line in lines)


@pytest.mark.long
def test_a_resumed_run_is_that_which_was_not_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adaptiveisp.training.trainer import Trainer

    assert adaptiveisp("train", *DATA, *HOW, "--budget", 48, "--out", "whole") == 0
    iterate = Trainer._iterate

    def stop_soon(self: Trainer) -> object:
        self.stopping = self.learner.iteration == 2
        return iterate(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_iterate", stop_soon)
        assert adaptiveisp("train", *DATA, *HOW, "--budget", 48, "--out", "parts") == INTERRUPTED
    monkeypatch.chdir(tmp_path / "one")
    assert adaptiveisp("train", "--resume", tmp_path / "parts", "--detector", RED, "--threads", 1, "-q") == 0
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "one/labels.json", "two/labels.json", "--images", "a", "b", "c"), "images: 3 folders for 2 COCO"),
        (("--data", "one/labels.json", "one/labels.json", "--images", "one/images"), "given 2 times"),
        ((*DATA, "--dev", "one/labels.json"), "dev_images: 2 folders for 1 COCO JSONs among 1 data sets"),
    ],
)
def test_sets_that_do_not_fit_are_refused_in_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adaptiveisp("train", *arguments, *HOW, "--budget", 8, "--out", "run") == WRONG_USE
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and message in errors[0] and not (tmp_path / "run").exists()


def test_teachers_answers_of_images_of_one_name_stay_apart() -> None:
    """Both sets have a photo1.png, of another width, so that its red box lies elsewhere."""
    options = TrainConfig(data=("one/labels.json", "two/labels.json"), images=("one/images", "two/images"),
                          labels="teacher", light="normal", dev_size=64, teacher_confidence=0.1)  # fmt: skip
    detector, settings = RedDetector(), make_settings("fixed", "", {"size": 64}, "test")
    teacher = open_teacher(options, detector, "cpu")
    images = open_training_images(options, settings, detector, teacher)
    assert isinstance(images, JoinedTrainingImages) and teacher is not None
    for number in range(5):
        images[number]
    assert set(teacher.answers) == {f"one/labels: photo{i}.png" for i in (1, 2)} | {
        f"two/labels: photo{i}.png" for i in (1, 2, 3)
    }
    lefts = {title[:3]: answer[0].bbox[0] for title, answer in teacher.answers.items()}
    assert lefts["one"] == pytest.approx(16, abs=2) and lefts["two"] == pytest.approx(24, abs=2)


def test_options_hold_one_path_or_several(tmp_path: Path) -> None:
    several = TrainConfig(data=["one/labels.json", "two/labels.json"], images="one/images")
    assert several.data == ("one/labels.json", "two/labels.json") and several.images == "one/images"
    assert TrainConfig(data=("one/labels.json",)).data == "one/labels.json" and TrainConfig(data=()).data == ""
    options, _ = completed(several, make_settings("fixed", "", {}, "test"))
    assert options.data == tuple(str(tmp_path / name / "labels.json") for name in ("one", "two"))
    assert options.images == str(tmp_path / "one" / "images") and options.dev == options.cache == ""
    read, _ = resolve({"data": ["a.json", "b.json"], "dev": "c.json"}, {}, "file")
    assert read.data == ("a.json", "b.json") and read.dev == "c.json"
    with pytest.raises(UsageError, match="data = 3 does not fit; give text or a list"):
        resolve({"data": 3}, {}, "file")
    before = data_digest(several)
    (tmp_path / "two" / "labels.json").write_text("{}")
    assert data_digest(several) != before


def test_dev_sets_that_need_no_folder_take_none(tmp_path: Path) -> None:
    """The folder of the training images is not that of dev's raws."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(f"layout: coco\nroot: {name}\n")
    dev = open_dev(TrainConfig(data="one/labels.json", images="one/images", dev=("one.yaml", "two.yaml"),
                               dev_images="one/images"))  # fmt: skip
    assert {name: len(dataset.samples) for name, dataset in dev.items()} == {"one": 2, "two": 3}
    assert open_dev(TrainConfig(data="one/labels.json")) == {}
