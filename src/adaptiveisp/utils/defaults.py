"""Defaults that several packages and the command line share: each value is stated here and nowhere else."""

SIZE = 416
"""Longer side in pixels at which policy, modules and detector work."""
DETECTOR = "yolov3-tiny"
POLICY = "coco-adaptive"
"""The policy of `run` and `AdaptiveISP`."""
CONFIDENCE = 0.05
"""Least score of a box in the results of `run` and `AdaptiveISP`."""
