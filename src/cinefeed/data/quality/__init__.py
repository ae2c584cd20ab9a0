"""Quality checks of a data set: broken, duplicated or leaking videos, odd labels, shortcuts to the label."""

from cinefeed.data.quality.findings import CheckReport, Finding, Pair, Shortcut
from cinefeed.data.quality.run_checks import check_manifest

__all__ = ["CheckReport", "Finding", "Pair", "Shortcut", "check_manifest"]
