"""The sequence method: a whole pipeline from one observation (Won et al. 2026, POS-ISP)."""
