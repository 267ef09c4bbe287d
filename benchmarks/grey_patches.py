"""Casts of grey patches and burnt patches in what policies render, from raws with greys at known places.

python benchmarks/grey_patches.py --policy coco-adaptive tone=RUN --bayer DIR --data dev.json --images DIR

Two kinds of raws:
- the grey rows of the colour charts in three frames of a sensor (2592x1536, 8 bits, GRBG), six patches each, at 1296;
- synthetic raws: into the lower left corner of each photo a row of six squares is pasted, whose sides are 1/12 of the
  photo's shorter side and whose code values are those of a colour chart's greys; then a raw is made of it as for `eval`
  (a random camera, light `mixed`, noise `sensor`, seed 0). They are rendered at 416; the inner half of a side counts.

Of each patch the mean is taken, and its ΔE2000 to the neutral grey of the same L*. The three brightest patches of each
row (code values 160, 200 and 243) count for the share that is clipped (a channel above 0.98). `camera` needs the
parameters of a synthesis and is left out for the frames of the sensor.

Greys can also be had by fading the whole picture. `chroma` tells: over the cells (of 64x64) that are coloured in the
photo, the mean chroma of the rendered image, brought to the photo's L*, as a share of that of the photo; the median
over the raws. Raws darker than 0.03 are reported apart, since noise that is clipped at black gives greys a cast there
which no gain removes: `camera`, which knows the true gains, shows how much.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.data.references import SIDE
from adaptiveisp.data.synthetic import SynthesisConfig, SyntheticRaws, read_photo
from adaptiveisp.evaluation.grey_patches import Patch, PatchColours, patch_colours
from adaptiveisp.inference.predictor import develop_at_size
from adaptiveisp.policies.base import Policy
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.raw.reader import BayerHeader, read_raw
from adaptiveisp.raw.unprocess import seeded_generator, synthesise_rgb
from adaptiveisp.training.rl.colour import OFFSET, grey_cells
from adaptiveisp.types import RawImage
from adaptiveisp.utils.color import srgb_to_lab

GREYS = (243, 200, 160, 122, 85, 52)
N_BRIGHT = 3
SQUARE = 1 / 12
DARK = 0.03
CHART_SIZE, PHOTO_SIZE = 1296, 416
HEADER = BayerHeader(2592, 1536, 8, "GRBG", black=12.5)
# Frame → centres (x, y) of the patches from white to black and half the side of the rectangles, in pixels.
CHARTS = {
    "Indoor1": (((636, 1432), (718, 1434), (802, 1436), (886, 1438), (974, 1440), (1060, 1444)), 20),
    "Outdoor1": (((1644, 776), (1679, 777), (1712, 779), (1746, 780), (1782, 782), (1816, 784)), 8),
    "Outdoor2": (((936, 882), (1016, 872), (1094, 860), (1172, 846), (1250, 832), (1328, 822)), 20),
}


class Scene(NamedTuple):
    """A raw, its patches, the size at which it is rendered, the photo (sRGB) of which it was made, and its light."""

    raw: RawImage
    patches: list[Patch]
    size: int
    photo: Float[Tensor, "3 height width"] | None
    light: float


class Found(NamedTuple):
    """The colours of a scene's patches, the share of the photo's chroma that is left, and the scene's light."""

    colours: PatchColours
    chroma: float
    light: float


def chart(folder: Path, name: str) -> Scene:
    """A frame of the sensor."""
    raw = read_raw(folder / f"{name}_2592x1536_8bit_GRBG.raw", HEADER)
    centres, half = CHARTS[name]
    patches = [Patch(x - half, y - half, x + half, y + half, i < N_BRIGHT) for i, (x, y) in enumerate(centres)]
    return Scene(raw, patches, CHART_SIZE, None, 1.0)


def photos(data: Path, images: Path, limit: int, draws: int) -> Iterator[Scene]:
    """Synthetic raws of photos with a pasted row of greys."""
    raws = SyntheticRaws(data, images, SynthesisConfig("mixed", draws=draws), limit)
    for sample in raws.samples:
        photo = read_photo(Path(str(sample.source)))
        height, width = photo.shape[1:]
        side = int(min(height, width) * SQUARE)
        patches = []
        for i, grey in enumerate(GREYS):
            left, top = side // 2 + i * side, height - side - side // 2
            photo[:, top : top + side, left : left + side] = grey / 255
            edge = side / 4
            patches.append(Patch(left + edge, top + edge, left + side - edge, top + side - edge, i < N_BRIGHT))
        generator = seeded_generator(0, sample.image_id, sample.draw, "noise")
        how = raws.unprocessing(sample.image_id, sample.draw)
        yield Scene(synthesise_rgb(photo, how, generator), patches, PHOTO_SIZE, photo, how.light)


def chroma_left(image: Float[Tensor, "3 h w"], photo: Float[Tensor, "3 height width"]) -> float:
    """Share of the photo's chroma that the rendered image has, at the photo's L*."""
    cells = torch.cat([F.adaptive_avg_pool2d(one[None], SIDE) for one in (image, photo)])
    _, coloured = grey_cells(cells[1:])
    lab = srgb_to_lab(cells)
    chroma = lab[:, 1:].square().sum(dim=1).sqrt() * (lab[1:, 0] + OFFSET) / (lab[:, 0] + OFFSET)
    ours, theirs = chroma[:, coloured[0]].mean(dim=1).tolist()
    return float(ours / theirs)


def row(name: str, label: str, found: list[Found]) -> str:
    """A line of the table."""
    difference = torch.cat([one.colours.difference for one in found])
    clipped = torch.cat([one.colours.clipped for one in found]).float()
    numbers = [float(difference.mean()), float(difference.max()), 100 * float((difference > 10).float().mean())]
    numbers.append(100 * float(clipped.mean()))
    cells = " | ".join(f"{number:.1f}{unit}" for number, unit in zip(numbers, ("", "", " %", " %"), strict=True))
    chroma = torch.tensor([one.chroma for one in found]).nanmedian()
    return f"| {label} | {name} | {len(difference)} | {cells} | {'—' if chroma.isnan() else f'{chroma:.2f}'} |"


def found_in(policy: Policy, scene: Scene) -> Found:
    """What a policy makes of a scene."""
    developed = develop_at_size(scene.raw, scene.size)
    image = policy.render(developed).image[0]
    chroma = math.nan if scene.photo is None else chroma_left(image, scene.photo)
    return Found(patch_colours(image, scene.patches, developed.full_size), chroma, scene.light)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = ["none", "camera", "auto-exposure", "coco-fast", "coco-adaptive"]
    parser.add_argument("--policy", nargs="+", default=defaults)
    parser.add_argument("--bayer", type=Path, help="folder of the three frames")
    parser.add_argument("--data", type=Path, help="COCO JSON of photos")
    parser.add_argument("--images", type=Path, help="their folder")
    parser.add_argument("--limit", type=int, default=0, help="number of photos; 0 for all")
    parser.add_argument("--draws", type=int, default=1, help="raws of each photo")
    options = parser.parse_args()
    torch.set_num_threads(1)
    named = [one.split("=", 1) if "=" in one else (one, one) for one in options.policy]
    policies = {label: load_policy(spec) for label, spec in named}
    print("| policy | raws | patches | mean ΔE2000 | largest | above 10 | clipped, of the bright | chroma |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for name in CHARTS if options.bayer else ():
        scene = chart(options.bayer, name)
        for label, policy in policies.items():
            if not policy.needs_raw:
                print(row(name, label, [found_in(policy, scene)]), flush=True)
    if options.data:
        found: dict[str, list[Found]] = {label: [] for label in policies}
        for scene in photos(options.data, options.images, options.limit, options.draws):
            for label, policy in policies.items():
                found[label].append(found_in(policy, scene))
        for label, ones in found.items():
            for name, dark in ((f"light from {DARK}", False), (f"light below {DARK}", True)):
                if some := [one for one in ones if (one.light < DARK) == dark]:
                    print(row(name, label, some), flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
