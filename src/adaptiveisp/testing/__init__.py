"""Checks for parts of a user's own, for tests outside the package."""

from adaptiveisp.detectors.contract import check_detector
from adaptiveisp.isp.trial import check_module

__all__ = ["check_detector", "check_module"]
