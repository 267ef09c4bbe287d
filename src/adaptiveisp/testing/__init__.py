"""Checks for parts of a user's own, for tests outside the package."""

from adaptiveisp.detectors.contract import check_detector

__all__ = ["check_detector"]
