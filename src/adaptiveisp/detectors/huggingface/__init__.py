"""Detectors of the library transformers."""
