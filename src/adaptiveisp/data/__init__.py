"""Data sets of labelled raws, read from disk or made of photos, and the training images drawn from them."""
