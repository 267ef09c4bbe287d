"""From raw files to boxes with a policy and a detector: one image, or a batch of files."""
