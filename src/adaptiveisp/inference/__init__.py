"""Inference from raw files to boxes with a policy and a detector, for one image or for a batch of files."""
