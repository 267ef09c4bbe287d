"""Scores of policies and detectors: average precision, losses, paired intervals, reports and figures."""
