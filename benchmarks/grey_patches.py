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
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch

from adaptiveisp.data.synthetic import SynthesisConfig, SyntheticRaws, read_photo
from adaptiveisp.evaluation.grey_patches import Patch, PatchColours, patch_colours
from adaptiveisp.inference.predictor import develop_at_size
from adaptiveisp.policies.base import Policy
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.raw.reader import BayerHeader, read_raw
from adaptiveisp.raw.unprocess import seeded_generator, synthesise_rgb
from adaptiveisp.types import RawImage

GREYS = (243, 200, 160, 122, 85, 52)
N_BRIGHT = 3
SQUARE = 1 / 12
CHART_SIZE, PHOTO_SIZE = 1296, 416
HEADER = BayerHeader(2592, 1536, 8, "GRBG", black=12.5)
# Frame → centres (x, y) of the patches from white to black and half the side of the rectangles, in pixels.
CHARTS = {
    "Indoor1": (((636, 1432), (718, 1434), (802, 1436), (886, 1438), (974, 1440), (1060, 1444)), 20),
    "Outdoor1": (((1644, 776), (1679, 777), (1712, 779), (1746, 780), (1782, 782), (1816, 784)), 8),
    "Outdoor2": (((936, 882), (1016, 872), (1094, 860), (1172, 846), (1250, 832), (1328, 822)), 20),
}
Scene = tuple[RawImage, list[Patch], int]


def chart(folder: Path, name: str) -> Scene:
    """A frame of the sensor, its patches, and the size at which it is rendered."""
    raw = read_raw(folder / f"{name}_2592x1536_8bit_GRBG.raw", HEADER)
    centres, half = CHARTS[name]
    patches = [Patch(x - half, y - half, x + half, y + half, i < N_BRIGHT) for i, (x, y) in enumerate(centres)]
    return raw, patches, CHART_SIZE


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
        yield synthesise_rgb(photo, raws.unprocessing(sample.image_id, sample.draw), generator), patches, PHOTO_SIZE


def row(name: str, label: str, found: list[PatchColours]) -> str:
    """A line of the table."""
    difference = torch.cat([one.difference for one in found])
    clipped = torch.cat([one.clipped for one in found]).float()
    numbers = [float(difference.mean()), float(difference.max()), 100 * float((difference > 10).float().mean())]
    numbers.append(100 * float(clipped.mean()))
    cells = " | ".join(f"{number:.1f}{unit}" for number, unit in zip(numbers, ("", "", " %", " %"), strict=True))
    return f"| {label} | {name} | {len(difference)} | {cells} |"


def colours_of(policy: Policy, scene: Scene) -> PatchColours:
    """The colours of a scene's patches after a policy."""
    raw, patches, size = scene
    developed = develop_at_size(raw, size)
    return patch_colours(policy.render(developed).image[0], patches, developed.full_size)


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
    print("| policy | raws | patches | mean ΔE2000 | largest | above 10 | clipped, of the bright |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name in CHARTS if options.bayer else ():
        scene = chart(options.bayer, name)
        for label, policy in policies.items():
            if not policy.needs_raw:
                print(row(name, label, [colours_of(policy, scene)]), flush=True)
    if options.data:
        found: dict[str, list[PatchColours]] = {label: [] for label in policies}
        for scene in photos(options.data, options.images, options.limit, options.draws):
            for label, policy in policies.items():
                found[label].append(colours_of(policy, scene))
        for label, ones in found.items():
            print(row(options.data.parent.name or "photos", label, ones), flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
