"""Remedies for YOLOv8 and later, whose checkpoints are not read: their own tool exports them to ONNX."""

import re

NEWER_YOLO = re.compile(r"(yolov?(8|9|10|11|12|26)[a-z]{0,3}(-[a-z0-9-]+)?|rtdetr-[a-z]+)(\.pt)?", re.IGNORECASE)
"""Names of the weights that ultralytics publishes, such as yolov8n, yolo11s.pt and rtdetr-l."""


def export_remedy(weights: str = "best.pt") -> str:
    """The two commands that export a network of ultralytics and use it as a detector.

    >>> export_remedy("yolo11s.pt")
    'export it: yolo export model=yolo11s.pt format=onnx, then --detector yolo11s.onnx'

    Args:
        weights: name of the network's file.
    """
    return f"export it: yolo export model={weights} format=onnx, then --detector {weights.removesuffix('.pt')}.onnx"


def newer_yolo_remedy(text: str) -> str:
    """The remedy for a detector whose name is that of YOLOv8 or later; "" for all other names.

    Args:
        text: the detector as the user named it.
    """
    name = text.replace("\\", "/").rpartition("/")[2]
    if not NEWER_YOLO.fullmatch(name):
        return ""
    return (
        f"YOLOv8 and later are read from ONNX; {export_remedy(name if name.lower().endswith('.pt') else f'{name}.pt')}"
    )
