"""Settings of packing: the codec, the size and rate of the packed frames, and what happens to rows with faults."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from cinefeed.core.errors import SettingError, did_you_mean
from cinefeed.core.plugins import plugin_names
from cinefeed.video.clips import Fit, Frame
from cinefeed.video.packed.frame_codec import load_codec

Codec = Literal["copy", "raw", "ffv1", "jpeg", "h264"]  # built in
OnError = Literal["raise", "record"]
_LOSSLESS = frozenset({"copy", "raw", "ffv1"})
_QUALITY = {"jpeg": (2, 31, 3), "h264": (1, 51, 18)}  # smallest, largest and default value


@dataclass(frozen=True, kw_only=True)
class PackSettings:
    """Settings of `pack`. All but `on_error` and `max_bad` decide the bytes of the shards.

    codec:      copy (the bytes of the source files), raw (`.npy`), ffv1 (lossless), jpeg, h264, or that of a plug-in
    short_side: pixels of the shorter side of a packed frame; smaller videos keep their size
    size:       height and width of a packed frame, in place of `short_side`
    fit:        how a frame is fitted into `size`; see Frame
    channels:   1 (grey) or 3 (RGB); by default as stored
    rate_hz:    frames per second that are packed, if the source has more; by default all frames
    margin_seconds: for rows with start and end seconds, how much before and after them is packed too; by default whole
                videos are packed
    quality:    quantiser of jpeg (2 to 31, by default 3) or rate factor of h264 (1 to 51, by default 18); smaller is
                better
    gop:        distance of key frames in h264, 1 to 250
    window:     values that become black and white, for jpeg and h264 of more than 8 bits; see Frame
    rows_per_shard: by default as many as are expected to take 1 GB
    allow_burned_in: pack DICOM files whose header states that identities are burned into the pixels
    keep_ids:   keep ids that contain paths of DICOM, NIfTI and HDF5 files
    on_error:   "raise" stops at a row that cannot be packed, "record" keeps it without a video, with the error
    max_bad:    share of all rows that may be recorded

    >>> PackSettings(codec="jpeg", short_side=128).rows_per_shard is None
    True
    """

    codec: Codec | str = "jpeg"
    short_side: int | None = None
    size: tuple[int, int] | None = None
    fit: Fit = "crop"
    channels: int | None = None
    rate_hz: float | None = None
    margin_seconds: float | None = None
    quality: int | None = None
    gop: int = 12
    window: tuple[float, float] | None = None
    rows_per_shard: int | None = None
    allow_burned_in: bool = False
    keep_ids: bool = False
    on_error: OnError = "raise"
    max_bad: float = 0.01

    def __post_init__(self) -> None:
        if self.codec not in get_args(Codec) and load_codec(self.codec) is None:
            names = [*get_args(Codec), *plugin_names()["codecs"]]
            raise SettingError(f"codec={self.codec!r} is not a choice; {did_you_mean(str(self.codec), names)}")
        for name, choices in (("fit", Fit), ("on_error", OnError)):
            value = getattr(self, name)
            if value not in get_args(choices):
                raise SettingError(f"{name}={value!r} is not a choice; {did_you_mean(str(value), get_args(choices))}")
        for name in ("short_side", "rows_per_shard"):
            _check_whole(name, getattr(self, name), 1, 1 << 20)
        _check_whole("gop", self.gop, 1, 250)
        if self.size is not None:
            if not isinstance(self.size, tuple) or len(self.size) != 2 or self.short_side is not None:
                raise SettingError("size must be (height, width), and excludes short_side; give one of the two")
            for side in self.size:
                _check_whole("size", side, 1, 1 << 15)
        if self.channels not in (None, 1, 3):
            raise SettingError(f"channels={self.channels!r} must be 1 (grey), 3 (RGB) or None (as stored)")
        for name in ("rate_hz", "margin_seconds"):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
            if value is not None and (not is_number or (name == "rate_hz" and value == 0)):
                raise SettingError(f"{name}={value!r} must be a positive number")
        if self.quality is not None:
            if self.codec not in _QUALITY:
                raise SettingError(f"quality={self.quality} is for jpeg and h264; {self.codec} has none, leave it out")
            _check_whole("quality", self.quality, *_QUALITY[self.codec][:2])
        if self.codec == "copy" and (self.resizes or self.rate_hz or self.margin_seconds is not None or self.window):
            raise SettingError(
                "codec='copy' keeps the bytes of the files, so it takes no size, channels, rate, margin or window; "
                "choose another codec, or leave these out"
            )
        if not (isinstance(self.max_bad, int | float) and 0 <= self.max_bad <= 1):
            raise SettingError(f"max_bad={self.max_bad!r} must be a share of the rows, from 0 to 1")
        if self.window is not None:
            object.__setattr__(self, "window", Frame(height=1, width=1, window=self.window).window)

    @property
    def resizes(self) -> bool:
        """Whether frames are converted to pixels of a size or a number of channels; if not, they stay as stored."""
        return self.short_side is not None or self.size is not None or self.channels is not None

    @property
    def is_lossless(self) -> bool:
        """Whether the codec keeps all numbers."""
        added = load_codec(self.codec)
        return self.codec in _LOSSLESS if added is None else added.is_lossless

    @property
    def quantiser(self) -> int:
        """The quality, or its default."""
        return self.quality if self.quality is not None else _QUALITY[self.codec][2]

    def as_dict(self) -> dict[str, Any]:
        """Return the settings that decide the bytes of the shards, as plain data."""
        values = asdict(self)
        return {name: value for name, value in values.items() if name not in ("on_error", "max_bad")}


def _check_whole(name: str, value: object, least: int, most: int) -> None:
    if value is not None and not (type(value) is int and least <= value <= most):
        raise SettingError(f"{name}={value!r} must be a whole number from {least} to {most:,}")
