"""Replacing defective pixels: share of planted defects found, of good pixels changed, and PSNR, on synthetic raws.

python benchmarks/defects.py --images FOLDER [--photos 24]

Raws are made of the first photos of the folder; 0.05 % of their pixels are made hot (20 to 100 % of the range) and
0.05 % dead. A defect counts if it differs from the pixel's value by more than 2 % of the range. The PSNR compares with
the raw before defects were planted, which has its noise.
"""

import argparse
from pathlib import Path

import numpy as np

from adaptiveisp.data.synthetic import SynthesisConfig, read_photo
from adaptiveisp.raw.defects import without_defects
from adaptiveisp.raw.unprocess import seeded_generator, synthesise_mosaic

SETTINGS = (("sensor", "normal"), ("sensor", "mixed"), ("sensor", "dark"), ("canon-5d4", "dim"))
VISIBLE = 0.02


def measure(photos: list[Path], noise: str, light: str) -> tuple[float, float, float, float]:
    """Share of defects found, share of good pixels changed, PSNR before and after."""
    config, rng = SynthesisConfig(light, noise=noise), np.random.default_rng(0)
    n_defects = n_found = n_good = n_changed = n_pixels = 0
    before = after = 0.0
    for number, photo in enumerate(photos):
        generator = seeded_generator(0, number, 0, "noise")
        raw = synthesise_mosaic(read_photo(photo), config.unprocessing(number, 0), generator)
        clean, black = raw.data.astype(np.float64), raw.black_level[0]
        span = raw.white_level - black
        draw = rng.random(clean.shape)
        bad = raw.data.copy()
        hot, planted = draw < 0.0005, draw < 0.001
        bad[planted] = int(black)
        bad[hot] = (black + span * rng.uniform(0.2, 1, np.count_nonzero(hot))).astype(bad.dtype)
        fixed, _ = without_defects(bad, 2, black, raw.white_level)
        changed, visible = fixed != bad, planted & (np.abs(bad - clean) > VISIBLE * span)
        n_defects, n_found = n_defects + visible.sum(), n_found + (visible & changed).sum()
        n_good, n_changed = n_good + (~planted).sum(), n_changed + (changed & ~planted).sum()
        before, after = before + (((bad - clean) / span) ** 2).sum(), after + (((fixed - clean) / span) ** 2).sum()
        n_pixels += clean.size
    psnr = [10 * np.log10(n_pixels / error) for error in (before, after)]
    return n_found / n_defects, n_changed / n_good, psnr[0], psnr[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=24)
    options = parser.parse_args()
    photos = sorted(options.images.rglob("*.jpg"))[: options.photos]
    print("noise light | found | good pixels changed | PSNR before, after (dB)")
    for noise, light in SETTINGS:
        found, changed, before, after = measure(photos, noise, light)
        print(f"{noise} {light} | {found:.1%} | {changed:.4%} | {before:.1f}, {after:.1f}")


if __name__ == "__main__":
    main()
