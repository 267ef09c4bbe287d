"""NanoDet: a detector that predicts a distribution of the distance to each side of a box."""
