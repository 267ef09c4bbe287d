"""Pipelines as tunings of other software and hardware: libcamera on a Raspberry Pi, 3D look-up tables, DNG tags."""
