"""Frozen object detectors: loading them by name or file, their boxes, classes and weights."""
