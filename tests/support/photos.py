"""Small labelled photos that tests make for themselves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 47, "name": "cup"}, {"id": 62, "name": "chair"}]


def photo(width: int, height: int, seed: int) -> np.ndarray:
    """A smooth picture of greens and blues with a red box in it."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers((20, 60, 60), (60, 200, 200), (4, 5, 3)).astype(np.uint8)
    pixels = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    pixels[height // 4 : height // 2, width // 4 : width // 2] = (220, 60, 40)
    return pixels


def labelled_photos(folder: Path, n: int = 3, width: int = 64, height: int = 48, **changes: Any) -> Path:
    """Writes `n` photos and their COCO JSON, returns the JSON's path; `changes` replace keys of the JSON."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for i in range(1, n + 1):
        Image.fromarray(photo(width, height, i)).save(folder / "images" / f"photo{i}.png")
        images.append({"id": 10 * i, "file_name": f"photo{i}.png", "width": width, "height": height})
        box = [width / 4, height / 4, width / 4, height / 4]
        annotations.append(
            {"id": i, "image_id": 10 * i, "category_id": 47, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        )
    annotations.append(
        {"id": n + 1, "image_id": 10, "category_id": 1, "bbox": [0, 0, width, height / 2], "area": 1.0, "iscrowd": 1}
    )
    labels = folder / "labels.json"
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES, **changes}
    labels.write_text(json.dumps(content))
    return labels
