"""Tiny data sets in the published layouts, two images each, made by the tests: `LAYOUTS` has a writer of each.

Each writes a folder and returns the data-set YAML. The images are mosaics or linear RGB of 64x48 with a red box, the
labelled object, in the middle; LibRaw reads a DNG whatever its extension, so NEF, CR2 and ARW files are DNGs here.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from adaptiveisp.raw.dng import write_dng
from adaptiveisp.raw.reader import write_png16
from adaptiveisp.types import RawImage

WIDTH, HEIGHT = 64, 48
BOX = (16, 12, 48, 36)
"""xyxy of the object in pixels of the raw."""
SPLITS = {"train": 1, "val": 2}
"""Split → number of its image."""


def rgb(seed: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Linear RGB, dark, with a red box; 16 bits."""
    pixels = np.random.default_rng(seed).integers(800, 2500, (height, width, 3)).astype(np.uint16)
    x0, y0, x1, y1 = (
        BOX[0] * width // WIDTH,
        BOX[1] * height // HEIGHT,
        BOX[2] * width // WIDTH,
        BOX[3] * height // HEIGHT,
    )
    pixels[y0:y1, x0:x1] = (30000, 1500, 1500)
    return pixels


def mosaic(seed: int) -> np.ndarray:
    """The same as RGGB, 12 bits with black at 0."""
    picture, codes = rgb(seed) // 16, np.zeros((HEIGHT, WIDTH), np.uint16)
    for i, channel in enumerate((0, 1, 1, 2)):
        codes[i // 2 :: 2, i % 2 :: 2] = picture[i // 2 :: 2, i % 2 :: 2, channel]
    return codes


def write_png(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png16(rgb(seed), path)


def write_camera(path: Path, seed: int, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dng = path.with_suffix(".dng")
    write_dng(RawImage(mosaic(seed), "RGGB", (0.0,) * 4, 4095.0, orientation=orientation), dng)
    dng.rename(path)


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def yolo_line(key: int) -> str:
    x0, y0, x1, y1 = BOX
    values = ((x0 + x1) / 2 / WIDTH, (y0 + y1) / 2 / HEIGHT, (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT)
    return f"{key} " + " ".join(f"{value:.6f}" for value in values) + "\n"


def voc_xml(name: str, scale: float = 1.0, first: int = 0) -> str:
    x0, y0, x1, y1 = (value * scale for value in BOX)
    box = f"<xmin>{x0 + first:g}</xmin><ymin>{y0 + first:g}</ymin><xmax>{x1:g}</xmax><ymax>{y1:g}</ymax>"
    size = f"<size><width>{WIDTH * scale:g}</width><height>{HEIGHT * scale:g}</height><depth>3</depth></size>"
    return f"<annotation>{size}<object><name>{name}</name><bndbox>{box}</bndbox></object></annotation>"


def yolo(folder: Path) -> Path:
    """Ultralytics' kind, without `layout`: images/train, images/val, parallel labels."""
    for split, number in SPLITS.items():
        write_png(folder / "images" / split / f"{number}.png", number)
        write_text(folder / "labels" / split / f"{number}.txt", yolo_line(1))
    text = "path: .\ntrain: images/train\nval: images/val\ntest:\nnc: 2\nnames:\n  0: person\n  1: cup\n"
    return write_text(folder / "data.yaml", text + "download: https://example.org\n")


def voc(folder: Path) -> Path:
    for split, number in SPLITS.items():
        write_png(folder / "JPEGImages" / f"{number}.png", number)
        write_text(folder / "Annotations" / f"{number}.xml", voc_xml("cup", first=1))
        write_text(folder / "ImageSets" / "Main" / f"{split}.txt", f"{number}\n")
    return write_text(folder / "set.yaml", "layout: voc\n")


def coco(folder: Path) -> Path:
    x0, y0, x1, y1 = BOX
    for split, number in SPLITS.items():
        write_png(folder / "images" / f"{number}.png", number)
        image = {"id": 7, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT}
        label = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [x0, y0, x1 - x0, y1 - y0], "area": 700}
        content = {"images": [image], "annotations": [label], "categories": [{"id": 3, "name": "Mug"}]}
        write_text(folder / f"{split}.json", json.dumps(content))
    return write_text(folder / "set.yaml", "layout: coco\nlabels: '{split}.json'\nclasses: {Mug: cup}\n")


def lod(folder: Path) -> Path:
    """RAW-Adapter's copy: RAW_dark as PNG, XML, lists of stems."""
    for split, number in SPLITS.items():
        write_png(folder / "LOD" / "RAW_dark" / f"{2 * number}.png", number)
        write_text(folder / "LOD" / "RAW-dark-Annotations" / f"{2 * number}.xml", voc_xml("tvmonitor"))
        write_text(folder / "LOD" / "trainval" / f"{split}.txt", f"{2 * number}\n")
    return write_text(folder / "set.yaml", "layout: lod\nroot: LOD\nclasses: {tvmonitor: cup}\n")


def lod_yolo(folder: Path) -> Path:
    """AdaptiveISP's copy: YOLO text with the ids of COCO's 80, lists of paths."""
    for split, number in SPLITS.items():
        write_png(folder / "RAW_dark" / f"{2 * number}.png", number)
        write_text(folder / "labels" / f"{2 * number}.txt", yolo_line(41))
        write_text(folder / f"{split}.txt", f"./RAW_dark/{2 * number}.png\n")
    return write_text(folder / "set.yaml", "layout: lod\nannotations: yolo\n")


def lod_cr2(folder: Path) -> Path:
    """The camera's files with the XML of the smaller PNGs."""
    for split, number in SPLITS.items():
        write_camera(folder / "all_raw" / f"{2 * number}.CR2", number)
        write_text(folder / "RAW-dark-Annotations" / f"{2 * number}.xml", voc_xml("cup", scale=0.5))
        write_text(folder / "trainval" / f"{split}.txt", f"{2 * number}\n")
    return write_text(folder / "set.yaml", "layout: lod\nimages: all_raw\nextensions: .cr2\nscale-labels: true\n")


def oneplus(folder: Path) -> Path:
    for split, number in SPLITS.items():
        write_camera(folder / "raw" / f"IMG_{number}.dng", number)
        write_text(folder / "labels" / "detection" / f"IMG_{number}.xml", voc_xml("cup"))
        write_text(folder / f"{split}.txt", f"IMG_{number}\n")
    return write_text(folder / "set.yaml", "layout: oneplus\n")


def oneplus_mosaics(folder: Path) -> Path:
    """ReconfigISP's copy: a folder a split with RGGB mosaics of 10 bits as PNG, and one JSON an image."""
    x0, y0, x1, y1 = BOX
    for split, number in SPLITS.items():
        (folder / split).mkdir(parents=True)
        Image.fromarray(mosaic(number) // 4).save(folder / split / f"IMG_{number}.png")
        shape = {"label": "cup", "points": [[x0, y0], [x1, y1]]}
        write_text(folder / split / f"IMG_{number}.json", json.dumps({"shapes": [shape]}))
    text = "layout: rod\nimages: '{split}'\nlabels: '{split}'\nextensions: [.png]\nraw-bits: 10\nraw-white: 1023\n"
    return write_text(folder / "set.yaml", text + "splits: [train, val]\n")


def rod(folder: Path) -> Path:
    """24 bits in three bytes, low first, and one JSON an image."""
    x0, y0, x1, y1 = BOX
    for split, number in SPLITS.items():
        codes = mosaic(number).astype(np.uint32) * 4096
        planes = np.stack([codes & 255, codes >> 8 & 255, codes >> 16], axis=-1).astype(np.uint8)
        place = folder / split
        place.mkdir(parents=True)
        (place / f"day-0000{number}.raw").write_bytes(planes.tobytes())
        shape = {"label": "Pedestrian", "points": [[x0, y0], [x1, y1]]}
        write_text(place / f"day-0000{number}.json", json.dumps({"shapes": [shape]}))
    text = f"layout: rod\nimages: '{{split}}'\nlabels: '{{split}}'\nraw-size: {WIDTH}x{HEIGHT}\nraw-white: 16777215\n"
    return write_text(folder / "set.yaml", text + "classes: {Pedestrian: cup}\nsplits: [train, val]\n")


def rod_arrays(folder: Path) -> Path:
    """AdaptiveISP's copy: linear RGB of 24 bits as .npy, YOLO text with the ids of COCO's 80, lists of paths."""
    for split, number in SPLITS.items():
        write_text(folder / "labels" / f"day-{number}.txt", yolo_line(41))
        write_text(folder / f"{split}.txt", f"./npy/day-{number}.npy\n")
        (folder / "npy").mkdir(exist_ok=True)
        np.save(folder / "npy" / f"day-{number}.npy", rgb(number).astype(np.float32) * 512)
    return write_text(folder / "set.yaml", "layout: lod\nannotations: yolo\nimages: npy\nraw-white: p99\n")


def nod(folder: Path) -> Path:
    """RAW-NOD: texts as ids; the size and the box are those of a smaller JPG."""
    x0, y0, x1, y1 = (value / 2 for value in BOX)
    for split, number in SPLITS.items():
        stem = f"DSC0{number}"
        write_camera(folder / "raw" / f"{stem}.NEF", number)
        image = {"id": stem, "file_name": f"{stem}.JPG", "width": WIDTH // 2, "height": HEIGHT // 2}
        label = {"id": 0, "image_id": stem, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0], "area": 192}
        content = {"images": [image], "annotations": [label], "categories": [{"id": 1, "name": "cup"}]}
        write_text(folder / "annotations" / f"raw_new_Nikon750_{split}.json", json.dumps(content))
    text = "layout: nod\nlabels: annotations/raw_new_Nikon750_{split}.json\nimages: raw\n"
    return write_text(folder / "set.yaml", text)


def pascalraw(folder: Path) -> Path:
    for split, number in SPLITS.items():
        write_camera(folder / "original" / "raw" / f"2014_00000{number}.nef", number)
        write_text(folder / "annotations" / f"2014_00000{number}.xml", voc_xml("cup", scale=0.25))
        write_text(folder / "trainval" / f"{split}.txt", f"2014_00000{number}\n")
    return write_text(folder / "set.yaml", "layout: pascalraw\n")


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "yolo": yolo,
    "voc": voc,
    "coco": coco,
    "lod": lod,
    "lod-yolo": lod_yolo,
    "lod-cr2": lod_cr2,
    "oneplus": oneplus,
    "oneplus-mosaics": oneplus_mosaics,
    "rod": rod,
    "rod-arrays": rod_arrays,
    "nod": nod,
    "pascalraw": pascalraw,
}
