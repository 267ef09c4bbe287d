"""Detectors of the YOLOv3 and YOLOv5 repositories, read without running code."""
