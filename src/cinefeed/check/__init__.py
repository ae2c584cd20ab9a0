"""What is wrong with a data set: broken, copied or leaking videos, odd labels, shortcuts a model could take."""

from cinefeed.check.findings import CheckReport, Finding, Pair, Shortcut
from cinefeed.check.run import check_manifest

__all__ = ["CheckReport", "Finding", "Pair", "Shortcut", "check_manifest"]
