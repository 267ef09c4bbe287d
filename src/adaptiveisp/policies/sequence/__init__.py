"""Sequence policies: the whole pipeline from one observation (POS-ISP)."""
