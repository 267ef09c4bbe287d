"""Frozen object detectors: loading them by name or file, their boxes, classes and weights."""

from adaptiveisp.utils.old_paths import moved_names

__getattr__ = moved_names(__name__, {"load_detector": "adaptiveisp.detectors.loading"})
