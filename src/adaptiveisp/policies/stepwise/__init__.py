"""Step-wise policies: one module at a time (AdaptiveISP)."""
