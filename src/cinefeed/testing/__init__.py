"""Tools for tests: conformance checks for plug-ins, and videos with the frame number in their pixels."""

from cinefeed.testing.checks import check_transform
from cinefeed.testing.feeds import check_feed
from cinefeed.testing.samplers import check_sampler
from cinefeed.testing.sources import check_source, stored_metadata
from cinefeed.testing.videos import numbered_frames, read_number, write_video

__all__ = [
    "check_feed",
    "check_sampler",
    "check_source",
    "check_transform",
    "numbered_frames",
    "read_number",
    "stored_metadata",
    "write_video",
]
