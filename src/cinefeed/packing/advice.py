"""The gain of packing for a feed, measured on the user's own videos."""

from dataclasses import dataclass, replace
from math import ceil

from cinefeed.core.text import format_bytes, format_percent
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.sampling import Natural
from cinefeed.feed.feed import Feed
from cinefeed.feed.settings import FeedSettings, Workers
from cinefeed.feed.stats import Stats
from cinefeed.packing.sample import CodecMeasurement, measure_codecs
from cinefeed.packing.settings import Codec
from cinefeed.video.clips import Clip, Frame

MARGIN = 1.15  # of packed frames around the frame of a feed, for crops and rotations
_WORTHWHILE_SHARE, _WORTHWHILE_GAIN = 0.5, 1.5
_DEFAULT_SIDE = 112


@dataclass(frozen=True, kw_only=True)
class PackingAdvice:
    """The measured result of packing: `gain` is the factor in clips per second, `bytes` the size of all shards."""

    codec: str
    short_side: int | None
    gain: float
    bytes: float
    decode_share: float

    def __str__(self) -> str:
        size = "" if self.short_side is None else f" --short-side {self.short_side}"
        return (
            f"decoding takes {format_percent(self.decode_share)} of a clip; cinefeed pack --codec {self.codec}{size} "
            f"would give about {self.gain:.2g} times the clips/s for {format_bytes(self.bytes)} (measured on a sample)"
        )


def packing_advice(
    manifest: Manifest, settings: FeedSettings, stats: Stats, *, codec: Codec = "jpeg"
) -> PackingAdvice | None:
    """Return the gain of packing for a feed with these settings; None if the gain is small.

    It is small if decoding takes less than half of the work in `stats`, if the rows are packed already, or if a packed
    sample is fed less than 1.5 times as fast. The measurement takes some seconds.
    """
    share = stats.decode_seconds / (sum(stats.stages.values()) or 1.0)
    if share < _WORTHWHILE_SHARE or manifest.is_packed or manifest.rows.views or manifest.rows.arrays is not None:
        return None
    short_side = packed_side(settings.frame)
    options = {"short_side": short_side, "channels": 1 if settings.frame.channels == 1 else None}

    def make_feed(rows: Manifest) -> Feed:
        return Feed.from_settings(rows, _plain(settings))

    source, packed = measure_codecs(manifest, (codec,), options=options, make_feed=make_feed)
    return _advice(source, packed, short_side=short_side, share=share)


def packed_side(frame: Frame) -> int | None:
    """Return the short side of packed frames for the frame of a feed; None if frames must keep their size.

    >>> packed_side(Frame(height=112, width=112)), packed_side(Frame(height=112, width=112, spacing_mm=1.0))
    (130, None)
    """
    if frame.spacing_mm is not None or frame.region is not None or frame.fit == "none":
        return None
    return 2 * ceil(MARGIN * max(frame.height, frame.width) / 2)


def default_feed(manifest: Manifest) -> Feed:
    """Return a feed of clips of 16 frames, 112 x 112, by which codecs are compared."""
    channels = manifest.column("channels").drop_null().to_pylist() if "channels" in manifest.columns else []
    frame = Frame(
        height=_DEFAULT_SIDE,
        width=_DEFAULT_SIDE,
        channels=1 if channels and max(channels) == 1 else 3,
        dtype="float32" if _has_open_scale(manifest) else "uint8",
    )
    return Feed(manifest, target=None, clip=Clip(frames=16), frame=frame, workers=0, batch_size=4)


def _has_open_scale(manifest: Manifest) -> bool:
    return "bits" in manifest.columns and any(bits != 8 for bits in manifest.column("bits").drop_null().to_pylist())


def _plain(settings: FeedSettings) -> FeedSettings:
    """Return the settings without labels and workers, for a feed of the rows in their order."""
    inputs = replace(settings.inputs, covariates=(), weight=None, mask=None)
    return replace(
        settings,
        target=None,
        task=None,
        classes=None,
        sampler=Natural(),
        mixing=None,
        inputs=inputs,
        workers=Workers(count=0),
        batch_size=settings.clips_per_video.count,
        shard=None,
        on_error="raise",
    )


def _advice(
    source: CodecMeasurement, packed: CodecMeasurement, *, short_side: int | None, share: float
) -> PackingAdvice | None:
    if packed.error or packed.codec is None:
        return None
    gain = packed.clips_per_second / source.clips_per_second
    if not gain >= _WORTHWHILE_GAIN:
        return None
    return PackingAdvice(codec=packed.codec, short_side=short_side, gain=gain, bytes=packed.bytes, decode_share=share)
