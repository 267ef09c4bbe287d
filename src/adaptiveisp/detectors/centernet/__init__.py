"""CenterNet: a detector that finds the centres of objects in a heat map."""
