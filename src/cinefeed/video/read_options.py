"""Options for files that can be read in several ways."""

from dataclasses import dataclass
from typing import Literal, get_args

from cinefeed.core.arguments import check_arguments, expect, in_words
from cinefeed.core.errors import ArgumentError, SettingError, did_you_mean
from cinefeed.video.limits import DEFAULT_LIMITS, ReadLimits

Window = Literal["file", "none", "percentiles"]


OnDamage = Literal["raise", "conceal"]


@check_arguments()
@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Options for reading files that can be read in several ways. Scans store the result in each row for feeds.

    axes:    order of an array's axes, one letter per axis: T time, H height, W width, C channels, Z slices, N samples
             ("HWT", "NTHW"); by default (N,) T, H, W (, C) for arrays, and the order in the header for NIfTI
    slice:   slice of a 4-D volume: the middle one, one by number, or each as a separate sample
    window:  values that become black and white: those in the file (DICOM, NIfTI), none (numbers as stored), or the 1st
             and 99th percentile of the file
    stream:  index among the video streams of a file; by default the first that is not a cover picture
    frames:  images of a folder that are its frames, as a name pattern, such as "*.jpg" beside masks (a pattern with a /
             is matched against the path, such as "*/images/*"); by default all, which must then have one format
    keep:    DICOM attributes to keep as columns, such as SeriesDescription, ProtocolName, Manufacturer,
             ManufacturerModelName, MagneticFieldStrength, ViewPosition; names, dates and comments are never kept
    salt:    salt for hashing patient, study and series ids; by default random, so that the hashes of two scans differ;
             "" keeps the ids unhashed
    limits:  limits beyond which a file is refused
    on_damage:  "raise" refuses to read a damaged frame of an encoded video; "conceal" returns what FFmpeg substitutes.
             The substitute is always the same: a new decoder starts at the previous key frame, which is slow. To find
             damaged frames all frames are decoded, whatever `verify` is
    """

    axes: str | None = None
    slice: Literal["middle", "each"] | int = "middle"
    window: Window = "file"
    stream: int | None = None
    frames: str | None = None
    keep: tuple[str, ...] = ()
    salt: str | None = None
    limits: ReadLimits = DEFAULT_LIMITS
    on_damage: OnDamage = "raise"

    def __post_init__(self) -> None:
        expect(self.limits, ReadLimits, name="ReadOptions(limits)", remedy="give limits=ReadLimits(max_frames=...)")
        if isinstance(self.keep, str) or not all(isinstance(name, str) for name in self.keep):
            raise ArgumentError(
                f"ReadOptions(keep={in_words(self.keep)}) must be a list of DICOM attributes; did you mean "
                f"keep=[{self.keep!r}]?"
            )
        object.__setattr__(self, "keep", tuple(self.keep))
        if self.window not in get_args(Window):
            raise SettingError(f"window={self.window!r} is not a choice; {did_you_mean(self.window, get_args(Window))}")
        if self.on_damage not in get_args(OnDamage):
            raise SettingError(
                f"on_damage={self.on_damage!r} is not a choice; {did_you_mean(self.on_damage, get_args(OnDamage))}"
            )
        if not (self.slice in ("middle", "each") or (type(self.slice) is int and self.slice >= 0)):
            raise SettingError(f"slice={self.slice!r} must be 'middle', 'each' or a number from 0")
        if self.stream is not None and (type(self.stream) is not int or self.stream < 0):
            raise SettingError(f"stream={self.stream!r} must be a number from 0")
        if not (self.frames is None or (isinstance(self.frames, str) and self.frames)):
            raise SettingError(f"frames={self.frames!r} must be a pattern of file names, such as '*.jpg'")
        axes = self.axes
        if axes is not None and not ({*"THW"} <= {*axes} <= {*"NTZHWC"} and len({*axes}) == len(axes)):
            raise SettingError(f"axes={axes!r} must name T, H and W, and may name C, Z and N, each once, as in 'HWT'")


DEFAULT_READ_OPTIONS = ReadOptions()
