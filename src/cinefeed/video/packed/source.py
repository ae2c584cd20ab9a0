"""Opening of videos in packed shards."""

from pathlib import Path

from cinefeed.video.clips import PixelType
from cinefeed.video.embedded import PackedVideo
from cinefeed.video.ffmpeg.source import EncodedSource
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.packed.arrays import PackedArray
from cinefeed.video.packed.frame_codec import CONTAINER, PackedPlanes
from cinefeed.video.source import FrameSource, Source


def open_packed(
    path: Path, *, channels: int | None = None, metadata: VideoMetadata, dtype: PixelType | None = None
) -> Source:
    """Open a video in a shard, at the position in its metadata. Raises SourceError if it cannot be opened."""
    assert metadata.member is not None
    if metadata.container == "npy":
        source: FrameSource = PackedArray(path, channels=channels, metadata=metadata)
        source.dtype = dtype
        return source
    if metadata.container == CONTAINER:
        source = PackedPlanes(path, channels=channels, metadata=metadata)
        source.dtype = dtype
        return source
    video = PackedVideo(path, metadata.member.offset, metadata.member.size)
    return EncodedSource(video, channels=channels, metadata=metadata, dtype=dtype)
