"""Run times of modules, chains, denoisers, demosaicing and policies against other implementations.

    python benchmarks/speed.py [--threads 2] [--repeats 9] [--out FILE.json]

The references are the plain version of the original implementation (plain.py), OpenCV, kornia, a copy of the image
and the detector. All run in one process; times are medians of interleaved runs. The script needs `pip install
opencv-python-headless kornia`, and prints the tables of docs/performance.md.
"""

import argparse
import importlib.metadata
import os
import time
from collections.abc import Callable
from pathlib import Path

for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # set for older libraries; they would slow down numpy
    os.environ.pop(name, None)

import cv2
import kornia
import numpy as np
import plain
import torch

from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.evaluation.benchmark import (
    CHAIN,
    STEPS,
    medians,
    sample_image,
    some_calls,
    some_parameters,
    untrained_policy,
)
from adaptiveisp.isp.execution import run_one
from adaptiveisp.isp.registry import PAPER, find_module
from adaptiveisp.kernels import loading
from adaptiveisp.policies.environment import counted, start
from adaptiveisp.policies.stepwise.networks import observe
from adaptiveisp.raw.develop import develop
from adaptiveisp.types import RawImage
from adaptiveisp.utils.files import write_json
from adaptiveisp.utils.provenance import provenance

SIZE = 512
Functions = dict[str, Callable[[], object]]


def pictures(size: int) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """The same image for torch, for OpenCV in float32, and for OpenCV in 8 bits."""
    image = sample_image(size)
    floats = np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())
    return image, floats, (floats * 255).round().astype(np.uint8)


def plain_policy(image: torch.Tensor, names: tuple[str, ...]) -> torch.Tensor:
    """Five steps as in the original: all heads and all ten modules run, one result is kept. The networks are ours."""
    policy = untrained_policy()
    modules = policy.modules

    def run() -> torch.Tensor:
        state = start(image, len(modules))
        for name in names:
            choice = policy.actor(observe(state, policy.header.view))
            action = torch.tensor([policy.header.modules.index(name)])
            state = counted(state, plain.step(state.image, dict(choice.params), action), action, modules)
        return state.image

    return run


def policies(image: torch.Tensor, with_denoise: tuple[str, ...]) -> dict[str, tuple[Functions, int]]:
    """A policy and five modules, ours and the plain version, forced to run the same modules."""
    found: dict[str, tuple[Functions, int]] = {}
    for title, names in (("policy and five modules", STEPS), ("the same with non-local means", with_denoise)):
        policy = untrained_policy()
        forced = [policy.header.modules.index(name) for name in names]
        found[title] = (
            {"ours": lambda p=policy, f=forced: p.process(image, f), "plain": plain_policy(image, names)},
            3,
        )
    return found


def modules(image: torch.Tensor) -> dict[str, tuple[Functions, int]]:
    """The paper's modules except non-local means, each against its plain version."""
    found: dict[str, tuple[Functions, int]] = {}
    for module in PAPER:
        if module.name != "denoise":
            row = torch.tensor([some_parameters(module)])
            call = [(module, row[0].tolist())]
            functions: Functions = {
                "ours": lambda call=call: run_one(image[0], call),
                "PyTorch module": lambda m=module, row=row: m.function(image, row).clamp(0, 1),
                "plain": lambda n=module.name, row=row: plain.MODULES[n](image, row).clamp(0, 1),
            }
            found[module.name] = (functions, 0)
    return found


def others(image: torch.Tensor, floats: np.ndarray, bytes_: np.ndarray) -> dict[str, tuple[Functions, int]]:
    """Denoisers, and operations that OpenCV or kornia also have."""
    h = torch.full((1, 1), 0.3)
    guided = find_module("guided_denoise", "extended")
    matrix = torch.tensor([[1.5, -0.3, -0.2], [-0.2, 1.4, -0.2], [0.0, -0.5, 1.5]])

    def one(name: str, *params: float) -> Callable[[], object]:
        call = [(find_module(name, "extended"), list(params))]
        return lambda: run_one(image[0], call)

    denoise = find_module("denoise", "paper")
    found: dict[str, Functions] = {
        "denoise 11/5": {
            "ours": lambda: denoise(image, h),
            "plain": lambda: plain.denoise(image, h),
            "OpenCV fastNlMeansDenoisingColored, 8 bit": lambda: cv2.fastNlMeansDenoisingColored(
                bytes_, None, 10, 10, 5, 11
            ),
        },
        "guided_denoise": {
            "ours": one("guided_denoise", 0.03, 0.8),
            "ours in PyTorch": lambda: guided.function(image, torch.tensor([[0.03, 0.8]])).clamp(0, 1),
            "denoise 11/5": lambda: denoise(image, h),
            "kornia guided_blur 12x12, subsampled by 4": lambda: kornia.filters.guided_blur(
                image, image, 12, 1e-3, subsample=4
            ),
            "OpenCV bilateralFilter, diameter 11": lambda: cv2.bilateralFilter(floats, 11, 0.1, 3),
        },
        "gamma": {
            "ours": one("gamma", 0.45),
            "kornia adjust_gamma": lambda: kornia.enhance.adjust_gamma(image, 0.45),
            "OpenCV pow": lambda: cv2.pow(floats, 0.45),
        },
        "ccm": {
            "ours": one("ccm", *matrix.flatten().tolist()),
            "OpenCV transform": lambda: cv2.transform(floats, matrix.numpy()),
        },
        "saturation": {
            "ours": one("saturation", 0.5),
            "kornia adjust_saturation": lambda: kornia.enhance.adjust_saturation(image, 1.5),
            "OpenCV to HSV and back": lambda: cv2.cvtColor(cv2.cvtColor(floats, cv2.COLOR_RGB2HSV), cv2.COLOR_HSV2RGB),
        },
        "sharpen": {
            "ours": one("sharpen", 2.0),
            "kornia sharpness": lambda: kornia.enhance.sharpness(image, 2.0),
            "OpenCV filter2D 3x3": lambda: cv2.filter2D(floats, -1, np.ones((3, 3), np.float32) / 9),
        },
        "tone": {
            "ours": one("tone", *some_parameters(find_module("tone", "paper"))),
            "OpenCV LUT, 8 bit": lambda: cv2.LUT(bytes_, np.arange(256, dtype=np.uint8)),
        },
    }
    return {f"{name}, other libraries": (functions, 0) for name, functions in found.items()}


def demosaicing(height: int, width: int) -> dict[str, tuple[Functions, int]]:
    """Developing and demosaicing of 12-bit Bayer data."""
    data = np.random.default_rng(0).integers(64, 4096, (height, width), dtype=np.uint16)
    raw = RawImage(data, "RGGB", (64.0,) * 4, 4095.0)
    functions: Functions = {
        "ours: develop, Malvar, float": lambda: develop(raw),
        "ours: develop, bilinear, float": lambda: develop(raw, demosaic="bilinear"),
        "OpenCV bilinear, 16 bit": lambda: cv2.demosaicing(data, cv2.COLOR_BayerBG2RGB),
        "OpenCV edge-aware, 16 bit": lambda: cv2.demosaicing(data, cv2.COLOR_BayerBG2RGB_EA),
        "kornia bilinear, float": lambda: kornia.color.raw_to_rgb(
            torch.from_numpy(data.astype(np.float32))[None, None], kornia.color.CFA.BG
        ),
    }
    return {f"{width}x{height} Bayer": (functions, 5)}


def chain() -> dict[str, tuple[Functions, int]]:
    """A chain of six pointwise modules at 1080p."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 1080, 1920, generator=generator)
    target = torch.empty_like(image)
    calls = some_calls(CHAIN)

    def by_modules() -> None:
        step = image
        with loading.turned_off():
            for module, params in calls:
                step = module(step, torch.tensor([params]))

    functions: Functions = {
        "ours": lambda: run_one(image[0], calls),
        "ours, written over": lambda: run_one(target[0], calls, owned=True),
        "a copy into memory that is there": lambda: target.copy_(image),
        "a copy into new memory": image.clone,
        "module by module in PyTorch": by_modules,
    }
    return {"six pointwise modules, 1920x1080": (functions, 0)}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--only", default="", help="only groups whose name contains this text")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    image, floats, bytes_ = pictures(SIZE)
    detector = load_detector("yolov3-tiny")
    frame = torch.full((1, 3, 416, 416), 0.5)
    size: Functions = {"copy": image.clone, "detector forward at 416": lambda: detector.detect(frame)}
    with_denoise = ("denoise", *STEPS[1:])
    groups = {
        **{"references": (size, 0)},
        **policies(image, with_denoise),
        **others(image, floats, bytes_),
        **modules(image),
        **chain(),
        **demosaicing(3000, 4000),
    }
    results = {}
    for title, (functions, repeats) in groups.items():
        if options.only not in title:
            continue
        found = medians(functions, repeats or options.repeats)
        first = next(iter(found.values()))
        results[title] = found
        for name, ms in found.items():
            print(f"{title:34} {name:45} {ms:10.3f} ms   {ms / first:8.2f} x ours", flush=True)
    if options.out:
        versions = {n: importlib.metadata.version(n) for n in ("kornia", "opencv-python-headless")}
        facts = {"size": SIZE, "compiled": loading.available(), "libraries": versions, "time": time.strftime("%F")}
        write_json(options.out, {**facts, "median_ms": results, "provenance": provenance(0)})


if __name__ == "__main__":
    main()
