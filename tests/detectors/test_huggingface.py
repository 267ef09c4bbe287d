"""Hugging Face's detectors against the library itself: pixels, loss, detections; and what folders are refused."""

import hashlib
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from adaptiveisp.cli.parser import main
from adaptiveisp.detectors.huggingface.loading import TransformersDetector
from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.errors import AdaptiveISPError, DetectorError, WeightsError
from adaptiveisp.types import Targets
from tests.support.photos import labelled_photos
from tests.support.transformers_models import CLASS_NAMES, KINDS, config_of, processor_of, random_network, write_model

BOXES = torch.tensor([[4.0, 8.0, 60.0, 40.0], [30.0, 2.0, 90.0, 30.0], [50.0, 20.0, 80.0, 60.0]])
LABELS = torch.tensor([1, 0, 1])
IN_UNITS = torch.tensor(  # the boxes above in an image of 96 x 64: centre, size, by hand
    [[32 / 96, 24 / 64, 56 / 96, 32 / 64], [60 / 96, 16 / 64, 60 / 96, 28 / 64], [65 / 96, 40 / 64, 30 / 96, 40 / 64]]
)
NOTHING = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))


def photo(height: int = 64, width: int = 96) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


def image_of(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / request.param, request.param)


@pytest.fixture(scope="module")
def detector(folder: Path) -> Any:
    return load_detector(folder)


@pytest.fixture(scope="module")
def library(folder: Path) -> Any:
    import transformers

    return transformers.AutoModelForObjectDetection.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def pixel_values(folder: Path) -> Any:
    return processor_of(folder.name)(images=photo(), return_tensors="pt")["pixel_values"]


def test_loss_and_gradient_are_the_librarys(detector: Any, library: Any, pixel_values: Any) -> None:
    pixel_values = pixel_values.clone().requires_grad_()
    expected = library(pixel_values, labels=[{"class_labels": LABELS, "boxes": IN_UNITS}]).loss
    image = image_of(photo()).requires_grad_()
    (loss,) = detector.loss(image, [Targets(BOXES, LABELS)])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    (wanted,) = torch.autograd.grad(expected, pixel_values)
    (gradient,) = torch.autograd.grad(loss, image)
    # The image enters as (image - mean) / std.
    torch.testing.assert_close(gradient, wanted / detector.std, rtol=1e-2, atol=1e-3 * gradient.abs().max().item())


def test_loss_without_objects_is_the_librarys(
    detector: Any, library: Any, pixel_values: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its matching is told that nothing matches, so that only the terms of the loss are left."""
    from transformers.loss import loss_deformable_detr, loss_for_object_detection, loss_rt_detr

    none = torch.zeros(0, dtype=torch.int64)
    for matcher in (
        loss_for_object_detection.HungarianMatcher,
        loss_deformable_detr.DeformableDetrHungarianMatcher,
        loss_rt_detr.RTDetrHungarianMatcher,
    ):
        monkeypatch.setattr(matcher, "forward", lambda self, outputs, targets: [(none, none)])
    labels = [{"class_labels": NOTHING.labels, "boxes": NOTHING.boxes}]
    expected = library(pixel_values, labels=labels).loss
    monkeypatch.undo()
    (loss,) = detector.loss(image_of(photo()), [NOTHING])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4) and loss > 0


def test_loss_of_a_half_precision_network_is_computed_in_float32(tmp_path: Path) -> None:
    from transformers.loss.loss_utils import ForObjectDetectionLoss

    detector: Any = load_detector(write_model(tmp_path / "yolos", "yolos"))
    image = image_of(photo())
    with torch.autocast("cpu", torch.bfloat16):
        (loss,) = detector.loss(image, [Targets(BOXES, LABELS)])
        logits, boxes = detector(image)
    labels = [{"class_labels": LABELS, "boxes": IN_UNITS}]
    expected, _, _ = ForObjectDetectionLoss(logits, labels, "cpu", boxes, detector.model.config)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_detections_are_the_librarys(folder: Path, detector: Any, library: Any, pixel_values: Any) -> None:
    with torch.no_grad():
        output = library(pixel_values)
    (expected,) = processor_of(folder.name).post_process_object_detection(
        output, threshold=0.02, target_sizes=[(64, 96)]
    )
    order = torch.argsort(expected["scores"], descending=True, stable=True)
    (found,) = detector.detect(image_of(photo()), 0.02, max_detections=len(order))
    assert len(order) > 3
    torch.testing.assert_close(found.scores, expected["scores"][order], rtol=1e-4, atol=1e-5)
    assert found.labels.tolist() == expected["labels"][order].tolist()
    limits = torch.tensor([96.0, 64.0, 96.0, 64.0])
    torch.testing.assert_close(
        found.boxes, torch.minimum(expected["boxes"][order].clamp(min=0), limits), rtol=1e-3, atol=1e-3
    )


def test_facts_of_a_folder(folder: Path, detector: Any) -> None:
    assert (detector.name, detector.class_names) == (folder.name, CLASS_NAMES)
    assert detector.stride == (16 if folder.name == "yolos" else 32)
    assert detector.weights_sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_images_and_targets_that_do_not_fit(detector: Any) -> None:
    for height, width in ((64, 40), (0, 64)):
        with pytest.raises(DetectorError, match=f"multiples of {detector.stride}, not {height}x{width}"):
            detector.detect(torch.zeros(1, 3, height, width))
    image = torch.rand(1, 3, 64, 64)
    with pytest.raises(DetectorError, match="1 images but targets for 2"):
        detector.loss(image, [NOTHING, NOTHING])
    for label in (3, -1):
        with pytest.raises(DetectorError, match="label outside 0 to 2"):
            detector.loss(image, [Targets(BOXES[:1], torch.tensor([label]))])


def test_an_image_that_is_not_finite_spoils_its_own_loss_only(detector: Any) -> None:
    image = torch.cat([image_of(photo())] * 2)
    image[0, 1, 5, 5] = torch.nan
    losses = detector.loss(image, [Targets(BOXES, LABELS), NOTHING])
    assert losses[0].isnan() and losses[1].isfinite()


def test_more_objects_than_queries(tmp_path: Path) -> None:
    detector = load_detector(write_model(tmp_path / "yolos", "yolos"))
    many = Targets(BOXES.repeat(5, 1), LABELS.repeat(5))
    assert detector.loss(image_of(photo()), [many]).isfinite().all()


PIXELS: dict[str, dict[str, Any]] = {
    "normalised": {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.1, 0.2, 0.3]},
    "as they are": {"do_normalize": False},
    "code values": {"do_rescale": False, "do_normalize": False},
    "-1 to 1": {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
}


@pytest.mark.parametrize("how", PIXELS)
def test_pixels_reach_the_network_as_the_librarys_processor_makes_them(how: str, tmp_path: Path) -> None:
    seen = []
    detector = load_detector(write_model(tmp_path / "yolos", "yolos", **PIXELS[how]))
    assert isinstance(detector, TransformersDetector)
    detector.model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs["pixel_values"]), with_kwargs=True)  # fmt: skip  # noqa: E501
    detector.detect(image_of(photo()))
    expected = processor_of("yolos", **PIXELS[how])(images=photo(), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(seen[0], expected.to(torch.float32), rtol=1e-5, atol=1e-5)


def test_anchors_fit_any_size(tmp_path: Path) -> None:
    """A network whose anchors are kept for one size has others for other sizes, as one does that keeps none."""
    fixed = random_network(config_of("rt_detr", anchor_image_size=[64, 96]))
    detector: Any = load_detector(write_model(tmp_path / "rt_detr", "rt_detr", fixed))
    free = random_network(config_of("rt_detr"))
    with torch.no_grad():
        for network, height in ((fixed, 64), (free, 64), (free, 128)):
            found = network(detector._normalised(image_of(photo(height, 96))))
            logits, boxes = detector(image_of(photo(height, 96)))
            torch.testing.assert_close(logits, found.logits, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(boxes, found.pred_boxes, rtol=1e-4, atol=1e-5)


def test_weights_in_several_files(tmp_path: Path) -> None:
    whole = load_detector(write_model(tmp_path / "one" / "yolos", "yolos"))
    folder = write_model(tmp_path / "yolos", "yolos")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    keys = sorted(weights)
    names = {key: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, key in enumerate(keys)}
    for name in set(names.values()):
        save_file({key: weights[key] for key in keys if names[key] == name}, folder / name, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    split = load_detector(folder)
    content = b"".join(path.read_bytes() for path in sorted(folder.glob("*.safetensors")))
    assert split.weights_sha256 == hashlib.sha256(content).hexdigest() != whole.weights_sha256
    image = image_of(photo())
    assert torch.equal(split.loss(image, [Targets(BOXES, LABELS)]), whole.loss(image, [Targets(BOXES, LABELS)]))
    next(folder.glob("*.safetensors")).unlink()
    with pytest.raises(DetectorError, match=r"has no model-0000\d-of-00002.safetensors"):
        load_detector(folder)


def change_json(path: Path, **changes: Any) -> None:
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def only_a_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def change_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    weights: dict[str, Any] = {**load_file(folder / "model.safetensors"), **changes}
    save_file({k: v for k, v in weights.items() if v is not None}, folder / "model.safetensors", {"format": "pt"})


BIAS = "bbox_predictor.layers.2.bias"
FAULTS: dict[str, tuple[Any, type[AdaptiveISPError], str]] = {
    "no preprocessor": (
        lambda f: (f / "preprocessor_config.json").unlink(),
        DetectorError,
        "preprocessor_config.json: no such file; save model and image processor",
    ),
    "pickle": (only_a_pickle, DetectorError, r"pickle \(pytorch_model.bin\).* convert it"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), DetectorError, "has no model.safetensors"),
    "kind": (
        lambda f: change_json(f / "config.json", model_type="bert"),
        DetectorError,
        "model_type 'bert'; give a detector of the type yolos, detr",
    ),
    "no kind": (lambda f: (f / "config.json").write_text("{}"), DetectorError, "model_type None; give a detector"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), DetectorError, "config.json: is not valid JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), DetectorError, "config.json: holds no JSON object"),
    "sizes": (lambda f: change_json(f / "config.json", hidden_size=24), WeightsError, "do not fit config.json"),
    "layers": (lambda f: change_json(f / "config.json", num_hidden_layers="x"), DetectorError, "cannot load it"),
    "mean": (
        lambda f: change_json(f / "preprocessor_config.json", image_mean=[0.5]),
        DetectorError,
        "must say do_normalize: false, or else give three numbers",
    ),
    "no mean": (
        lambda f: change_json(f / "preprocessor_config.json", image_mean=None, do_normalize=None),
        DetectorError,
        "must say do_normalize: false",
    ),
    "std": (
        lambda f: change_json(f / "preprocessor_config.json", image_std=[1, 0, 1]),
        DetectorError,
        r"image_std \(above 0\)",
    ),
    "missing": (lambda f: change_weights(f, **{BIAS: None}), WeightsError, f"1 missing .* such as {BIAS}"),
    "shape": (lambda f: change_weights(f, **{BIAS: torch.zeros(5)}), WeightsError, f"such as {BIAS}"),
    "not finite": (
        lambda f: change_weights(f, **{BIAS: torch.tensor([0, 1, torch.inf, 0])}),
        WeightsError,
        "1 of its weights hold values that are not finite",
    ),
    "truncated": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:50000]),
        DetectorError,
        "transformers cannot load it: SafetensorError",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_folders_that_are_refused(
    fault: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    make, kind, message = FAULTS[fault]
    folder = write_model(tmp_path / "yolos", "yolos")
    make(folder)
    capfd.readouterr()
    with pytest.raises(kind, match=message) as caught:
        load_detector(folder)
    assert str(caught.value).startswith(str(folder)) and "\n" not in str(caught.value)
    assert capfd.readouterr().err == "", "the library must not print"


def test_a_backbone_of_timm_is_refused_with_a_remedy(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "detr", "detr")
    change_json(folder / "config.json", backbone_config={"model_type": "timm_backbone", "backbone": "resnet50"})
    with pytest.raises(DetectorError, match=r"library timm, which is not supported; .*@no_timm"):
        load_detector(folder)


@pytest.mark.parametrize("library", ["transformers", "scipy"])
def test_without_the_library(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model(tmp_path / "yolos", "yolos")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(AdaptiveISPError, match=rf"{library} is not installed; run: pip install .*\[transformers\]"):
        load_detector(folder)


def test_a_name_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the cache, as the hub's own library lays it out; without a connection and not cached, one line says so."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    repository = tmp_path / "cache" / "models--some-org--tiny-1.5"
    write_model(repository / "snapshots" / ("0" * 40), "yolos")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "refs" / "v2").write_text("0" * 40)
    monkeypatch.chdir(tmp_path)
    assert load_detector("some-org/tiny-1.5").name == "some-org/tiny-1.5"
    assert load_detector("some-org/tiny-1.5@v2").class_names == CLASS_NAMES
    with pytest.raises(DetectorError, match=r"no such file; known: .*cannot be fetched from the Hugging Face hub") as e:
        load_detector("some-org/tiny-1.5@v3")
    assert "\n" not in str(e.value) and "give its path" in str(e.value)
    write_model(tmp_path / "some-org" / "tiny-1.5", "detr")  # a path of that name comes first
    assert load_detector("some-org/tiny-1.5").stride == 32


@pytest.mark.usefixtures("without_figures")
def test_training_and_evaluation_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    labelled_photos(tmp_path)
    write_model(tmp_path / "yolos", "yolos")
    photos = ["--data", "labels.json", "--images", "images", "--detector", "yolos", "--size", "64", "-q"]
    photos += ["--light", "mixed", "--threads", "1"]
    assert main(["train", "--method", "fixed", *photos, "--out", "run", "--budget", "24"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["passes"] >= 24 and all(max(line["gradient_norm"].values()) > 0 for line in lines)
    assert main(["eval", *photos, "--policy", "none", "run", "--resamples", "200", "--out", "report"]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    for policy in ("none", "run"):
        scores = report["policies"][policy]["yolos"]
        assert scores["n_images"] == 3 and scores["loss_mean"] > 0
    detector = load_detector("yolos")
    assert report["provenance"]["weights_sha256"] == {"yolos": detector.weights_sha256}


MARKER = "ran"
CODE = f"open({MARKER!r}, 'w').close()\n"


class _Runs:
    """Unpickled, it leaves a file behind."""

    def __reduce__(self) -> Any:
        return exec, (CODE,)


def test_nothing_in_a_folder_is_run_and_nothing_else_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that config.json names, pickles beside the weights, and an adapter that names another folder."""
    monkeypatch.chdir(tmp_path)
    folder = write_model(tmp_path / "yolos", "yolos")
    expected = load_detector(folder)
    for name in ("modeling_mine.py", "configuration_mine.py", "image_processing_mine.py", "__init__.py"):
        (folder / name).write_text(CODE)
    classes = {"AutoConfig": "configuration_mine.Mine", "AutoModelForObjectDetection": "modeling_mine.Mine"}
    change_json(folder / "config.json", auto_map=classes, custom_pipelines={"x": {"impl": "modeling_mine.Mine"}})
    change_json(folder / "preprocessor_config.json", auto_map={"AutoImageProcessor": "image_processing_mine.Mine"})
    for name in ("pytorch_model.bin", ".metadata", "training_args.bin"):
        (folder / name).write_bytes(pickle.dumps(_Runs()))
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "gone")}))
    found: Any = load_detector(folder)
    assert not list(tmp_path.rglob(MARKER)) and "modeling_mine" not in " ".join(sys.modules)
    assert type(found.model).__module__ == "transformers.models.yolos.modeling_yolos"
    torch.testing.assert_close(found(image_of(photo())), expected(image_of(photo())))
    pickle.loads((folder / "pytorch_model.bin").read_bytes())  # what was not done above
    assert (tmp_path / MARKER).exists()


CONFIGS: dict[str, tuple[str, dict[str, Any], str]] = {
    "queries": ("detr", {"num_queries": 1e9}, r"num_queries is 1000000000\.0; detectors have from 1 to 2000"),
    "no queries": ("detr", {"num_queries": 0}, "num_queries is 0; detectors have from 1 to 2000"),
    "tokens": ("yolos", {"num_detection_tokens": 10**9}, "num_detection_tokens is 1000000000"),
    "layers": ("yolos", {"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000; detectors have from 0 to 256"),
    "width": ("yolos", {"hidden_size": 10**9}, "hidden_size is 1000000000; detectors have from -65536 to 65536"),
    "below": ("yolos", {"hidden_size": -(10**400)}, "hidden_size is -1000"),
    "patches": ("yolos", {"patch_size": 1}, "patch_size is 1; detectors have from 8"),
    "image": ("yolos", {"image_size": [10**9, 8]}, "image_size is 1000000000"),
    "classes": ("yolos", {"num_labels": 10**9}, "num_labels is 1000000000; detectors have from 1 to 30000"),
    "backbone": ("detr", {"backbone_config": {"model_type": "resnet", "depths": [10**7]}}, "depths is 10000000"),
    "weights": ("yolos", {"hidden_size": 60000}, "asks for [0-9]+ weights, but its files have [0-9]+ bytes"),
    "kernels": ("yolos", {"attn_implementation": "some-org/kernel"}, "brings code or files from elsewhere"),
    "inner kernels": (
        "detr",
        {"backbone_config": {"model_type": "resnet", "attn_implementation": "some-org/kernel"}},
        "attn_implementation is 'some-org/kernel', which brings code",
    ),
    "other weights": ("yolos", {"transformers_weights": "../other.safetensors"}, "transformers_weights is"),
    "quantised": ("yolos", {"quantization_config": {"quant_method": "awq"}}, "quantization_config is"),
    "a model of the hub": (
        "rt_detr",
        {"backbone": "some-org/resnet", "backbone_config": None},
        "its backbone comes from the library timm",
    ),
}


@pytest.mark.parametrize("fault", CONFIGS)
def test_a_config_that_asks_for_too_much_or_for_code(fault: str, tmp_path: Path) -> None:
    kind, changes, message = CONFIGS[fault]
    folder = write_model(tmp_path / kind, kind)
    change_json(folder / "config.json", **changes)
    with pytest.raises(DetectorError, match=message) as caught:
        load_detector(folder)
    assert str(caught.value).startswith(str(folder)) and "\n" not in str(caught.value)


def test_long_class_names_are_shortened(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "yolos", "yolos")
    labels = {"0": "x" * 10**7, "1": "a\x1b[31mb\nc", "2": "chair"}
    change_json(folder / "config.json", id2label=labels, label2id={})
    first, second, third = load_detector(folder).class_names
    assert len(first) == 100 and (second, third) == ("a\\x1b[31mb c", "chair")
