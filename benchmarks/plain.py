"""The reference of the speed figures: the paper's ten modules and a step of its agent in plain PyTorch.

As in the original implementation, every step computes all ten modules and keeps one result, non-local means rolls the
image 121 times and sums each patch by 25 rolls, and saturation converts to hue, with a mask for each sextant. The code
is written anew from the formulas of the method; `python benchmarks/plain.py --golden FOLDER` checks it against values
of the original implementation (reference.npz).
"""

import argparse
import itertools
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LUMINANCE = (0.27, 0.67, 0.06)
LUMA = (0.299, 0.587, 0.114)


def weighted(image: Tensor, weights: tuple[float, float, float]) -> Tensor:
    return (image * image.new_tensor(weights)[None, :, None, None]).sum(dim=1, keepdim=True)


def column(params: Tensor, i: int = 0) -> Tensor:
    return params[:, i, None, None, None]


def exposure(image: Tensor, params: Tensor) -> Tensor:
    return image * torch.exp(column(params) * math.log(2))


def gamma(image: Tensor, params: Tensor) -> Tensor:
    return torch.pow(torch.clamp(image, min=0.001), column(params))


def ccm(image: Tensor, params: Tensor) -> Tensor:
    matrix = params.reshape(-1, 3, 3)
    matrix = matrix / matrix.sum(dim=2, keepdim=True)
    pixels = image.permute(0, 2, 3, 1)
    return torch.matmul(pixels[:, :, :, None, :], matrix.transpose(1, 2)[:, None, None])[..., 0, :].permute(0, 3, 1, 2)


def sharpen(image: Tensor, params: Tensor) -> Tensor:
    kernel = image.new_ones(3, 3)
    kernel[1, 1] = 5
    blurred = F.conv2d(image, (kernel / kernel.sum()).expand(3, 1, 3, 3), groups=3)
    smooth = image.clone()
    smooth[:, :, 1:-1, 1:-1] = blurred
    return torch.clamp(column(params) * image + (1 - column(params)) * smooth, 0, 1)


def denoise(image: Tensor, params: Tensor) -> Tensor:
    luma = weighted(image, LUMA)
    numerator, denominator = torch.zeros_like(image), torch.zeros_like(luma)
    for dy, dx in itertools.product(range(-5, 6), repeat=2):
        squared = (luma - luma.roll((dy, dx), (2, 3))) ** 2
        total = torch.zeros_like(luma)
        for a, b in itertools.product(range(-2, 3), repeat=2):
            total = total + squared.roll((a, b), (2, 3))
        weight = torch.exp(-Distance.apply(total) / (column(params) + 1e-8))
        numerator = numerator + weight * image.roll((dy, dx), (2, 3))
        denominator = denominator + weight
    return numerator / denominator


class Distance(torch.autograd.Function):
    """A square root whose derivative at 0 is 0."""

    @staticmethod
    def forward(ctx, squared):
        root = squared.sqrt()
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx, gradient):
        (root,) = ctx.saved_tensors
        return torch.where(root > 0, gradient / (2 * root), 0)


def tone(image: Tensor, params: Tensor) -> Tensor:
    total = torch.zeros_like(image)
    for i in range(8):
        total = total + torch.clamp(image - i / 8, 0, 1 / 8) * column(params, i)
    return total * 8 / params.sum(dim=1)[:, None, None, None]


def contrast(image: Tensor, params: Tensor) -> Tensor:
    luminance = torch.clamp(weighted(image, LUMINANCE), 0, 1)
    curved = image / (luminance + 1e-6) * (0.5 - 0.5 * torch.cos(math.pi * luminance))
    return (1 - column(params)) * image + column(params) * curved


def saturation(image: Tensor, params: Tensor) -> Tensor:
    hue, s, value = to_hsv(image)
    raised = s + (1 - s) * (0.5 - (0.5 - value).abs()) * 0.8
    return (1 - column(params)) * image + column(params) * from_hsv(hue, raised, value)


def to_hsv(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in sextants 0..6, saturation, value, each (batch, 1, height, width)."""
    red, green, blue = image[:, 0:1], image[:, 1:2], image[:, 2:3]
    value, lowest = image.amax(dim=1, keepdim=True), image.amin(dim=1, keepdim=True)
    chroma = value - lowest
    safe = torch.where(chroma > 0, chroma, 1)
    hue = torch.zeros_like(value)
    for channel, place in (
        (red, (green - blue) / safe),
        (green, 2 + (blue - red) / safe),
        (blue, 4 + (red - green) / safe),
    ):
        hue = torch.where((channel == value) & (chroma > 0), place % 6, hue)
    return hue, torch.where(value > 0, chroma / torch.where(value > 0, value, 1), 0), value


def from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    sextant = torch.floor(hue)
    part = hue - sextant
    p, q, t = value * (1 - saturation), value * (1 - saturation * part), value * (1 - saturation * (1 - part))
    choices = ((value, t, p), (q, value, p), (p, value, t), (p, q, value), (t, p, value), (value, p, q))
    image = torch.zeros_like(torch.cat([value] * 3, dim=1))
    for i, choice in enumerate(choices):
        image = torch.where(sextant % 6 == i, torch.cat(choice, dim=1), image)
    return image


def desaturation(image: Tensor, params: Tensor) -> Tensor:
    return (1 - column(params)) * image + column(params) * weighted(image, LUMINANCE)


def white_balance(image: Tensor, params: Tensor) -> Tensor:
    return image * params[:, :, None, None]


MODULES = {
    "exposure": exposure,
    "gamma": gamma,
    "ccm": ccm,
    "sharpen": sharpen,
    "denoise": denoise,
    "tone": tone,
    "contrast": contrast,
    "saturation": saturation,
    "desaturation": desaturation,
    "white_balance": white_balance,
}
"""The modules by name, in the order of the action ids."""


def step(image: Tensor, params: dict[str, Tensor], chosen: Tensor) -> Tensor:
    """The result of one module for each image; all ten modules run on every image and are clipped.

    Args:
        image: (batch, 3, height, width).
        params: module → parameters, a row for each image.
        chosen: action id of each image.
    """
    results = torch.stack([torch.clamp(module(image, params[name]), 0, 1) for name, module in MODULES.items()], dim=1)
    mask = F.one_hot(chosen, len(MODULES)).to(image.dtype)
    return (results * mask[:, :, None, None, None]).sum(dim=1)


def check(folder: Path) -> None:
    """Prints the largest difference of each module from the original; exits with an error if one exceeds 1e-5."""
    with np.load(folder / "reference.npz") as archive:
        golden = {name: torch.from_numpy(archive[name]) for name in archive.files if archive[name].dtype.kind in "fi"}
    worst = 0.0
    for name, module in MODULES.items():
        found = module(golden["modules/input"], golden[f"modules/{name}/params"])
        expected = golden[f"modules/{name}/output"]
        if name == "saturation":  # the original turns exactly grey pixels red; this input must have none
            assert (golden["modules/input"].amax(1) > golden["modules/input"].amin(1)).all()
        error = (found - expected).abs().max().item()
        worst = max(worst, error)
        print(f"{name:14} {error:.1e}")
    if worst > 1e-5:
        raise SystemExit(f"differs from the original by {worst:.1e}")
    print(f"all within {worst:.1e} of the original's values")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--golden", type=Path, required=True, metavar="FOLDER")
    check(parser.parse_args().golden)
