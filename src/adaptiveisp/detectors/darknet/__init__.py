"""Detectors in Darknet's format: a .cfg and a .weights file."""
