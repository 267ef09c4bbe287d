"""Reading of a model folder of Hugging Face's transformers, and its download from the hub.

Source: the files that `save_pretrained` of the library transformers writes.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from adaptiveisp.detectors.class_names import LARGEST_FILE, MOST_CLASSES
from adaptiveisp.detectors.limits import MAX_NUMBER
from adaptiveisp.errors import DetectorError, shown
from adaptiveisp.utils.files import read_json, sha256_of
from adaptiveisp.utils.optional_imports import import_extra

EXTRA = "transformers"
CONFIG, PREPROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
"""File that lists the weights' files if there are several."""

CODE = "auto_map"
"""Setting that names the Python files of a model with custom code. It is ignored, and the library's network is used."""

FROM_ELSEWHERE = (
    *("attn_implementation", "_attn_implementation", "experts_implementation", "transformers_weights"),
    *("quantization_config", "fusion_config", "kernel_config", "distributed_config", "per_layer_config"),
)
"""Settings by which a config.json can make the library download kernels, or load other code and files."""
BUILT_IN = ("eager", "sdpa")
"""Implementations of attention inside the library."""

BOUNDS: dict[str, tuple[int, int]] = {
    "num_queries": (1, 2000),
    "num_detection_tokens": (1, 2000),
    "patch_size": (8, 128),
    "layers": (0, 256),
    "depths": (0, 256),
    "num_blocks": (0, 256),
    "num_denoising": (0, 2000),
    "num_labels": (1, MOST_CLASSES),
}
"""Part of a setting's name → its bounds. Published networks have up to 900 queries, 12 layers and 23 blocks a stage;
the memory of attention grows with the square of the number of queries or patches."""
UNLIMITED = ("seed",)
"""Settings that are numbers but no sizes."""
DEEPEST = 10
"""Most levels of nested configs; published ones have three."""

TIMM = (
    "its backbone comes from the library timm, which is not supported; give a model with a backbone of transformers' "
    "own (on the hub often the revision no_timm: organisation/model@no_timm)"
)


class Pixels(NamedTuple):
    """Normalisation of the network's input: (image · scale - mean) / std, with `image` in [0, 1]."""

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


def fetch_transformers(name: str, download: bool = True) -> Path:
    """The local folder of a model of the Hugging Face hub, downloaded unless it is cached; weights as safetensors only.

    Args:
        name: `organisation/model` or `organisation/model@revision`.
        download: whether it may be downloaded; if not, it must be cached.

    Raises:
        DetectorError: there is no such model, the hub cannot be reached, or `download` is false and it is not cached.
        AdaptiveISPError: huggingface_hub is not installed.
    """
    hub = import_extra("huggingface_hub", EXTRA)
    repository, _, revision = name.partition("@")
    wanted = [CONFIG, PREPROCESSOR, INDEX, "model*.safetensors"]
    options = {"revision": revision or None, "allow_patterns": wanted}
    if not download:
        try:
            return Path(hub.snapshot_download(repository, local_files_only=True, **options))
        except Exception as error:
            raise DetectorError(
                f"{name}: a file names this model, and it is not downloaded yet; if you want it, give it "
                f"yourself: --detector {name}, in Python detector={name!r}"
            ) from error
    try:
        return Path(hub.snapshot_download(repository, **options))
    # Wrong names, licences that were not accepted and lost connections raise exceptions of several libraries.
    except Exception as error:
        raise DetectorError(
            f"{name}: cannot be fetched from the Hugging Face hub ({reason_of(error)}); check name and network, "
            "or copy the model's folder here and give its path"
        ) from error


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model folder.

    Raises:
        DetectorError: the file is missing, wrong or too large.
    """
    if not path.exists():
        raise DetectorError(
            f"{path}: no such file; save model and image processor there with save_pretrained of transformers"
        )
    if not path.is_file() or path.stat().st_size > LARGEST_FILE:
        raise DetectorError(f"{path}: is not a file of at most {LARGEST_FILE // 1_000_000} MB; get the file again")
    content = read_json(path, DetectorError, "get the file again")
    if not isinstance(content, dict):
        raise DetectorError(f"{path}: holds no JSON object; get the file again")
    return content


def read_config(path: Path) -> dict[str, Any]:
    """The settings of a config.json without the setting `CODE`; sizes and numbers of layers are within bounds.

    Raises:
        DetectorError: the file is missing or wrong, a size is out of bounds, or a setting names files, code or models
            from elsewhere.
    """
    content = read_object(path)
    for name, value in _settings_of(content):
        if name in FROM_ELSEWHERE and value not in (None, {}, [], *BUILT_IN):
            raise DetectorError(
                f"{path}: {name} is {shown(value)}, which brings code or files from elsewhere and is not supported; "
                "save the model again without it"
            )
        low, high = next((limits for part, limits in BOUNDS.items() if part in name), (-MAX_NUMBER, MAX_NUMBER))
        number = isinstance(value, int | float) and not isinstance(value, bool) and name not in UNLIMITED
        if number and not low <= value <= high:
            raise DetectorError(
                f"{path}: {name} is {shown(value)}; detectors have from {low} to {high}, for the memory it takes; get "
                "the file again"
            )
    if isinstance(content.get("backbone"), str) and not content.get("backbone_config"):
        raise DetectorError(f"{path.parent}: {TIMM}")
    content.pop(CODE, None)
    return content


def _settings_of(content: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every setting of a config and its nested configs; items of a list come with the list's key."""
    if isinstance(content, dict) and depth < DEEPEST:
        for key, value in content.items():
            yield key, value
            # Tables of classes are skipped, since their keys are labels or any names.
            if key not in ("id2label", "label2id"):
                yield from _settings_of(value, key, depth + 1)
    elif isinstance(content, list) and depth < DEEPEST:
        for value in content:
            yield name, value
            yield from _settings_of(value, name, depth + 1)
    elif isinstance(content, dict | list):
        yield name, MAX_NUMBER + 1  # out of bounds, so that it is refused


def read_pixels(path: Path) -> Pixels:
    """The normalisation of pixel values in preprocessor_config.json; its settings of size and padding are ignored.

    Raises:
        DetectorError: the file is missing or wrong.
    """
    facts = read_object(path)
    # As in the library: code values times `rescale_factor` (if `do_rescale`), then normalised (if `do_normalize`).
    factor = facts.get("rescale_factor", 1 / 255) if facts.get("do_rescale", True) else 1.0
    mean, std = facts.get("image_mean"), facts.get("image_std")
    if facts.get("do_normalize") is False:
        mean, std = (0.0,) * 3, (1.0,) * 3
    try:
        pixels = Pixels(255.0 * float(factor), tuple(map(float, mean or ())), tuple(map(float, std or ())))
    except (TypeError, ValueError, OverflowError):
        pixels = Pixels(0.0, (), ())
    if not all(map(math.isfinite, (pixels.scale, *pixels.mean, *pixels.std))):
        pixels = Pixels(0.0, (), ())
    if pixels.scale <= 0 or len(pixels.mean) != 3 or len(pixels.std) != 3 or min(pixels.std) <= 0:
        raise DetectorError(
            f"{path}: must say do_normalize: false, or else give three numbers each as image_mean and image_std "
            "(above 0), and a rescale_factor above 0; get the file again"
        )
    return pixels


def weights_files(folder: Path) -> list[Path]:
    """The safetensors files of the weights, in the order of their names.

    Raises:
        DetectorError: files are missing, or the weights are pickles.
    """
    if (folder / INDEX).is_file() and not (folder / WEIGHTS).is_file():
        names = read_object(folder / INDEX).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(n, str) and Path(n).name == n for n in names.values()):
            raise DetectorError(f"{folder / INDEX}: its weight_map must name files beside it; get the folder again")
        files = [folder / name for name in sorted(set(names.values()))]
    else:
        files = [folder / WEIGHTS]
    missing = [path for path in files if not path.is_file()]
    if not missing and files:
        return files
    pickles = sorted(path.name for pattern in ("pytorch_model*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if pickles:
        raise DetectorError(
            f"{folder}: has its weights only as a pickle ({pickles[0]}), which can run code and is not read; where you "
            "trust it, convert it: transformers.AutoModelForObjectDetection.from_pretrained(OLD).save_pretrained(NEW)"
        )
    raise DetectorError(f"{folder}: has no {missing[0].name if missing else WEIGHTS}; give a folder with all weights")


def hash_of(files: list[Path]) -> str:
    """The SHA-256 of the concatenated files, hexadecimal."""
    return sha256_of(*files)


def reason_of(error: Exception) -> str:
    """Type and first line of an error of a library."""
    first = next(iter(str(error).splitlines()), "").strip().rstrip(".")
    return f"{type(error).__name__}: {first[:200]}".rstrip(": ")
