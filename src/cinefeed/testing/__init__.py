"""For tests, cinefeed's own and yours: public conformance checks, and videos that carry their frame number."""

from cinefeed.testing.checks import check_sampler, check_source, check_transform
from cinefeed.testing.videos import numbered_frames, read_number, write_video

__all__ = ["check_sampler", "check_source", "check_transform", "numbered_frames", "read_number", "write_video"]
