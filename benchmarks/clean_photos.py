"""Average precision of a detector on clean labelled photos, as a reference for policies on raws made from them.

python benchmarks/clean_photos.py --data val.json --images DIR [--detector yolov3-tiny] [--size 416]
"""

import argparse
from pathlib import Path

from adaptiveisp.data.formats.coco import load_coco
from adaptiveisp.data.synthetic import read_photo
from adaptiveisp.detectors.class_names import map_classes
from adaptiveisp.detectors.letterbox import resize_longer_side
from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.evaluation.coco_ap import ScoredImage, coco_average_precision
from adaptiveisp.evaluation.evaluator import EVALUATION_CONFIDENCE
from adaptiveisp.inference.detection import detect


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--detector", default="yolov3-tiny")
    parser.add_argument("--size", type=int, default=416)
    options = parser.parse_args()
    detector, labels = load_detector(options.detector), load_coco(options.data)
    to_category = map_classes(detector.class_names, labels.categories).label_to_category
    scored = []
    for image in labels.images:
        photo = read_photo(options.images / image.file_name)
        small, full = resize_longer_side(photo, options.size)[None], (photo.shape[1], photo.shape[2])
        found = detect(detector, [small], full, options.size, EVALUATION_CONFIDENCE)[0]
        ids = found.labels.apply_(lambda label: to_category.get(label, -1)).numpy()
        known = ids >= 0
        boxes, scores = found.boxes.double().numpy()[known], found.scores.double().numpy()[known]
        scored.append(ScoredImage(image.id, 0, None, image.annotations, boxes, scores, ids[known]))
    result = coco_average_precision(scored, labels.categories)
    print({name: round(100 * getattr(result, name), 2) for name in ("ap50", "ap", "ap75")}, len(scored), "photos")


if __name__ == "__main__":
    main()
