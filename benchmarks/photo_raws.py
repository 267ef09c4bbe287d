"""Raws made from photos in training: `PhotoTrainingImages` against the same steps in plain PyTorch.

    python benchmarks/photo_raws.py --data train.json --images DIR [--size 288] [--crop 0.9]

Both have the same decoded photos, crops, cameras and noise. Times are the CPU time of one thread, in interleaved runs.
The script also compares the results: the raws at the size of the photo, with values in steps of 12 bits, and the
resized images.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from adaptiveisp.data.photo_raws import raw_of_photo
from adaptiveisp.data.random_crop import cut, draw_crop, resized
from adaptiveisp.data.synthetic import SynthesisConfig
from adaptiveisp.data.training_images import PhotoTrainingImages
from adaptiveisp.detectors.class_names import COCO_80, map_classes
from adaptiveisp.kernels.loading import available, turned_off
from adaptiveisp.raw.unprocess import add_noise, draw_unprocessing, seeded_generator, unprocess
from adaptiveisp.utils.allocator import keep_freed_memory


def plain_raw(pixels, view, how, generator) -> Tensor:
    return add_noise(unprocess(cut(pixels, view) / 255, how), how, generator)


def plainly_resized(raw: Tensor, size: int) -> Tensor:
    how = {"mode": "bilinear", "antialias": True, "align_corners": False}
    return torch.nn.functional.interpolate(raw[None], size=(size, size), **how)[0].clamp(0, 1)


class Cases:
    """The steps that make a training image, timed for both versions."""

    def __init__(self, stream: PhotoTrainingImages):
        self.stream = stream
        self.seconds: dict[str, list[float]] = {}

    def timed(self, name: str, part: Callable[[], Tensor]) -> Tensor:
        start = time.thread_time()
        found = part()
        self.seconds.setdefault(name, []).append(time.thread_time() - start)
        return found

    def drawn(self, number: int):
        """The inputs of a training image: pixels, crop, camera, and the state of the generator after drawing them."""
        stream = self.stream
        _, pixels = stream.pictures[number]
        generator = seeded_generator(stream.synthesis.seed, number, 0, "training")
        view = draw_crop(pixels.shape[1], pixels.shape[2], stream.smallest_crop, generator)
        return pixels, view, draw_unprocessing(generator, stream.synthesis.light, stream.synthesis.noise), generator

    def both(self, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Raw and resized image of the package, then those of the plain version."""
        size, found = self.stream.crop_size, []
        kinds = {
            "ours": (raw_of_photo, lambda raw: resized(raw, size, size)),
            "plain": (plain_raw, partial(plainly_resized, size=size)),
        }
        for name, (make, resize) in kinds.items():
            arguments = self.drawn(number)
            raw = self.timed(f"{name}: raw", lambda make=make, arguments=arguments: make(*arguments))
            found += [raw, self.timed(f"{name}: resizing", lambda resize=resize, raw=raw: resize(raw))]
        with turned_off():
            arguments = self.drawn(number)
            self.timed("table alone: raw", lambda: raw_of_photo(*arguments))
        _, _, _, generator = self.drawn(number)
        self.timed("normal numbers alone", lambda: torch.randn(found[0].shape, generator=generator))
        self.timed("a whole image of the stream", lambda: self.stream[number].image)
        return found[0], found[1], found[2], found[3]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--size", type=int, default=288)
    parser.add_argument("--crop", type=float, default=0.9)
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--images-a-photo", type=int, default=3)
    options = parser.parse_args()
    if not available():
        raise SystemExit("the kernels are not compiled here, or turned off: nothing to compare")
    torch.set_num_threads(1)
    keep_freed_memory()  # as `train` does

    def to_label(categories):
        return map_classes(COCO_80, categories).category_to_label

    stream = PhotoTrainingImages(
        *(options.data, options.images, to_label, options.size, SynthesisConfig("mixed")),
        limit=options.photos,
        smallest_crop=options.crop,
    )
    cases, values, other, furthest = Cases(stream), 0, 0, 0.0
    for number in range(options.photos):
        stream[number]  # decodes the photo
    for number in range(options.photos, options.photos * (1 + options.images_a_photo)):
        raw, image, plain, plain_image = cases.both(number)
        values, other = values + raw.numel(), other + int((raw != plain).sum())
        furthest = max(furthest, float((image - plain_image).abs().max()))
    for name, seconds in cases.seconds.items():
        print(f"{name:28} {1e3 * statistics.median(seconds):6.2f} ms")
    ours, plain = (
        [a + b for a, b in zip(cases.seconds[f"{k}: raw"], cases.seconds[f"{k}: resizing"], strict=True)]
        for k in ("ours", "plain")
    )
    for name, times in (("raw and resizing", ours), ("the table alone, raw", cases.seconds["table alone: raw"])):
        base = plain if times is ours else cases.seconds["plain: raw"]
        print(f"{name}: {statistics.median(b / a for a, b in zip(times, base, strict=True)):.2f} times faster")
    print(f"{other} of {values} values of the raws differ; resized images differ by at most {furthest:.1e}")


if __name__ == "__main__":
    main()
