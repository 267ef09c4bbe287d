"""Methods that need no gradient learn the parameters of an ISP outside the package."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaptiveisp import RawImage, SynthesisConfig, register_module, synthesize
from adaptiveisp.data.raw_frames import RawFrameTrainingImages, RawTrainingImage, frames_of
from adaptiveisp.data.synthetic import SyntheticRaws
from adaptiveisp.isp import registry
from adaptiveisp.isp.external import rendered_frame
from tests.support.external_isp import SIMPLE
from tests.support.photos import labelled_photos
from tests.support.training_runs import RED, adaptiveisp, metrics

ISP = "tests.support.external_isp:SIMPLE"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet_place: None) -> Iterator[Path]:
    """A current folder with photos, and a registry without the ISPs of other tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry._REGISTERED, "_values", dict(registry._REGISTERED._values))
    labelled_photos(tmp_path)
    SIMPLE.calls.clear()
    yield tmp_path


def train(out: str, *changes: str, method: str = "cma_es", data: tuple[str, ...] = ()) -> int:
    photos = ("--data", "labels.json", "--images", "images", "--light", "mixed")
    how = ("--detector", RED, "--module", ISP, "--size", "64", "--dev-size", "64", "--threads", "1", "-q")
    return adaptiveisp("train", "--method", method, *(data or photos), *how, "--out", out, *changes)


CMA = ("--budget", "96", "--set=batch=2", "--set=population=4", "--set=sigma=1.0")


def stages(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["stages"]
    return found


@pytest.mark.long
def test_cma_es_finds_the_gains_that_the_detector_wants(place: Path) -> None:
    """The detector's loss falls with the mean of red, so that both parameters have to grow."""
    assert train("run", *CMA, "--dev", "labels.json", "--dev-images", "images") == 0
    (stage,) = stages(place / "run" / "latest.json")
    assert stage["module"] == "simple"
    assert stage["params"]["gain"] > 2 and stage["params"]["red"] > 1.2
    losses = [line["detector_loss"] for line in metrics(place / "run")]
    assert losses[-1] < losses[0]
    dev = [json.loads(line) for line in (place / "run" / "dev.jsonl").read_text().splitlines()]
    assert dev[-1]["modules_per_image"] == 1.0
    assert all(raw.pattern == "RGGB" for raw, _ in SIMPLE.calls), "photos must become mosaics"


@pytest.mark.long
def test_a_stopped_search_continues_with_the_same_numbers(place: Path) -> None:
    assert train("whole", *CMA) == 0
    assert train("parts", *CMA, "--budget", "32") == 0
    how = ("--module", ISP, "--detector", RED, "--threads", "1", "-q")
    assert adaptiveisp("train", "--resume", "parts", "--budget", "96", *how) == 0
    names = ("iteration", "passes", "detector_loss", "parameters")
    whole, parts = (
        [{name: line[name] for name in names} for line in metrics(place / run)] for run in ("whole", "parts")
    )
    assert parts == whole


def test_random_search_and_the_sampled_sequence_learn_it_too(place: Path) -> None:
    search = ("--budget", "24", "--set=batch=2", "--set=candidates=2", "--set=duel=2")
    assert train("search", *search, method="random_search") == 0
    assert all(stage["module"] == "simple" for stage in stages(place / "search" / "latest.json"))
    assert train("policy", "--preset", "sampled", "--budget", "32", method="sequence") == 0
    settings = (place / "policy" / "config.yaml").read_text()
    assert "preprocessing: raw" in settings and "horizon: 1" in settings
    tried = {params["gain"] for _, params in SIMPLE.calls}
    assert len(tried) > 30, "each candidate has its own sampled parameters"


def test_methods_that_need_a_gradient_refuse_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("run", "--budget", "32", method="sequence") == 2
    assert "simple: is an ISP outside the package, which has no gradient; choose" in capsys.readouterr().err
    assert train("run", *CMA, "--set=preprocessing=auto-exposure") == 2
    assert "the preprocessing auto-exposure has no effect; set preprocessing=raw" in capsys.readouterr().err


def test_run_and_eval_know_the_policy(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthesize(SynthesisConfig("mixed", format="dng"), Path("labels.json"), Path("images"), Path("raws"))
    assert train("run", *CMA, data=("--data", "raws", "--dev", "raws")) == 0
    common = ("--detector", RED, "--size", "64", "--threads", "1", "-q")
    assert adaptiveisp("run", "raws", "--policy", "run", "--module", ISP, *common, "--out", "seen") == 0
    (file,) = list((place / "seen").rglob("photo1*.pipeline.json"))
    assert stages(file) == stages(place / "run" / "best.json")
    evaluated = ("--policy", "run", "none", "--module", ISP, "--cache", "cache", *common)
    assert adaptiveisp("eval", "--data", "raws", *evaluated, "--out", "scores", "--resamples", "200") == 0
    assert json.loads((place / "scores" / "report.json").read_text())["policies"]["run"]["red"]["ap50"] >= 0
    registry._REGISTERED._values.pop("simple")
    assert adaptiveisp("run", "raws", "--policy", "run", *common, "--out", "again") == 1
    assert "module 'simple' is unknown" in capsys.readouterr().err


def test_the_crop_of_the_picture_is_the_crop_of_the_image(place: Path) -> None:
    """An ISP of gain 1 develops as the package does, but for the demosaicing."""
    synthesis = SynthesisConfig("normal", noise="none", format="dng")
    dataset = SyntheticRaws(Path("labels.json"), Path("images"), synthesis)
    images = RawFrameTrainingImages(dataset, lambda categories: {47: 41}, 32, smallest_crop=0.5)
    module = register_module(SIMPLE)
    lights = set()
    for number in (0, 1, 2, 3, 4):
        image = images[number]
        assert image.frame is not None and image.number == number
        made = rendered_frame(module, image.frame, [1.0, 1.0], 32, 32)
        errors = [float((one - image.image).abs().mean()) for one in (made, made.flip(2))]
        assert errors[0] < 0.02 and errors[0] < errors[1] / 1.5
        lights.add(image.light)
    assert len(lights) == 5, "each epoch has a new light"
    assert torch.equal(images[1].image, images[1].image)
    assert frames_of([images[0]], 2) == [images[0].frame] * 2 or frames_of([images[0]], 2) is not None
    plain = RawTrainingImage(0, images[0].image, images[0].targets, None)
    assert frames_of([plain]) is None


def test_a_raw_that_cannot_be_read_is_skipped(place: Path) -> None:
    from adaptiveisp.errors import DataError, RawFileError

    dataset = SyntheticRaws(Path("labels.json"), Path("images"), SynthesisConfig("normal", format="dng"))

    class Damaged:
        name, categories, samples, partly_labelled = "damaged", dataset.categories, dataset.samples, False
        all_damaged = False

        def read(self, sample: Any) -> RawImage:
            if sample.image_id == 10 or self.all_damaged:
                raise RawFileError(f"{sample.name}: is damaged")
            return dataset.read(sample)

    damaged = Damaged()
    images = RawFrameTrainingImages(damaged, lambda categories: {47: 41}, 32)  # type: ignore[arg-type]
    for number in range(3):
        assert np.isfinite(images[number].image.numpy()).all()
    assert list(images.skipped.values()) == ["photo1.png: is damaged"]
    damaged.all_damaged = True
    broken = RawFrameTrainingImages(damaged, lambda categories: {47: 41}, 32)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no image could be used; the first"):
        broken[0]
