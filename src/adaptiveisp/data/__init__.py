"""Data sets of labelled raws, read from disk or synthesised from photos, and the training images drawn from them."""
