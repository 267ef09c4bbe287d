"""Policies: what chooses a pipeline for an image. Heuristics, fixed pipelines, learned policies, upper bounds."""
