"""The step-wise method: actor and critic (Wang et al. 2024, AdaptiveISP)."""
