"""Data sets of labelled raws, from disk or synthesized from photos, and the images that training draws from them."""
