"""Makes docs/figure.jpg: `python docs/readme_figure.py FRAME.png FRAME.png FRAME.png`, three frames of a street.

The frames lie at 1/4, 2/4 and 3/4 of vtest.avi, a video in Debian's package opencv-doc, whose copyright file puts it
under Apache-2.0 and BSD-3-Clause. Each frame becomes a Bayer raw with 1 % of its light, for one camera and one draw of
noise. One threshold counts for all pictures. A reference box is one that the detector finds in the frame itself; it
counts as found where a box of the same class overlaps it by an IoU of 0.5 or more. Nothing is chosen by its result.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from adaptiveisp import AdaptiveISP, Detections, load_detector
from adaptiveisp.detectors.boxes import pairwise_iou
from adaptiveisp.detectors.letterbox import resize_longer_side
from adaptiveisp.inference.detection import detect
from adaptiveisp.inference.drawing import Tile, comparison_figure
from adaptiveisp.raw.unprocess import draw_unprocessing, seeded_generator, synthesise_mosaic
from adaptiveisp.utils.color import to_uint8

LIGHT, SIZE, CONFIDENCE, IOU = 0.01, 768, 0.25, 0.5
POLICIES = ("none", "auto-exposure", "coco-adaptive")


def found_of(reference: Detections, detections: Detections) -> int:
    """Reference boxes that a box of the same class overlaps."""
    if not len(detections.boxes):
        return 0
    hits = pairwise_iou(reference.boxes, detections.boxes) >= IOU
    return int((hits & (reference.labels[:, None] == detections.labels)).any(dim=1).sum())


def drawn(image: torch.Tensor, found: Detections, width: int) -> np.ndarray:
    """The picture with its boxes, without words, which would hide small people."""
    picture = Image.fromarray(to_uint8(image))
    canvas = ImageDraw.Draw(picture)
    for box in (found.boxes * (image.shape[2] / width)).tolist():
        canvas.rectangle([round(value) for value in box], outline=(255, 210, 0), width=3)
    return np.asarray(picture)


def main(paths: list[str]) -> None:
    """Writes docs/figure.jpg and prints the counts."""
    detector = load_detector("yolov3-tiny")
    camera = replace(draw_unprocessing(seeded_generator(0, 1, 0, "parameters"), "mixed", "sensor"), light=LIGHT)
    rows = []
    for number, path in enumerate(paths, 1):
        photo = torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy()).permute(2, 0, 1).float() / 255
        small = resize_longer_side(photo, SIZE)[None]
        reference = detect(detector, [small], (photo.shape[1], photo.shape[2]), SIZE, CONFIDENCE)[0]
        raw = synthesise_mosaic(photo, camera, seeded_generator(0, number, 0, "noise"))
        width = photo.shape[2]
        total = len(reference.labels)
        tiles = [Tile(drawn(small[0], reference, width), f"{total} found: the reference")]
        for policy in POLICIES:
            result = AdaptiveISP(policy, detector, SIZE, CONFIDENCE)(raw)
            found = found_of(reference, result.detections)
            picture = drawn(result.image, result.detections, width)
            tiles.append(Tile(picture, f"found {found} of {total}"))
            print(Path(path).stem, policy, found, "of", total, "boxes", len(result.detections.labels))
        rows.append(tiles)
    columns = ["full light", "1 % of it: the raw as it is", "auto-exposure", "coco-adaptive"]
    figure = comparison_figure(rows, columns, [], cell_width=420)
    figure.save(Path(__file__).parent / "figure.jpg", quality=82)


if __name__ == "__main__":
    main(sys.argv[1:])
