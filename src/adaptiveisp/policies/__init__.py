"""Policies, which choose a pipeline for each image: heuristics, fixed pipelines, learned policies, upper bounds."""
