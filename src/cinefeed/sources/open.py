"""Opening a video by its content, whatever its name says."""

from collections.abc import Sequence
from pathlib import Path

from cinefeed.clips import PixelType
from cinefeed.errors import SettingError, SourceError, did_you_mean
from cinefeed.sources.arrays import ArraySource, probe_array
from cinefeed.sources.base import DEFAULT_READING, Facts, Found, Reading, Source
from cinefeed.sources.encoded import EncodedSource
from cinefeed.sources.index import Verify, probe_encoded

_ENCODED = """
    .3g2 .3gp .asf .avi .divx .dv .f4v .flv .gif .h264 .hevc .ivf .m2ts .m2v .m4v .mjpeg .mjpg .mkv .mov .mp4 .mpe
    .mpeg .mpg .mts .mxf .nut .ogv .ts .vob .webm .wmv
"""
EXTENSIONS = frozenset([*_ENCODED.split(), ".npy"])
_NPY_MAGIC = b"\x93NUMPY"


def known_suffix(path: str | Path) -> str | None:
    """Return the suffix, in lower case, by which a scan takes a file for a video, or None.

    >>> known_suffix("studies/7/4ch.v2.MP4"), known_suffix("notes.txt")
    ('.mp4', None)
    """
    name = Path(path).name.lower().lstrip(".")
    parts = name.split(".")
    for i in range(1, len(parts)):  # the longest first, so that a compound suffix wins
        suffix = "." + ".".join(parts[i:])
        if suffix in EXTENSIONS:
            return suffix
    return None


def open_source(
    path: str | Path,
    *,
    channels: int | None = None,
    part: str | None = None,
    facts: Facts | None = None,
    reading: Reading = DEFAULT_READING,
    dtype: PixelType | None = None,
) -> Source:
    """Open a video and read any of its frames.

    `channels` is 1 (grey) or 3 (RGB), or as the file holds them. `facts` are those of the manifest: with them nothing
    is probed and no pass over the file is made. Raises SourceError where the file holds no video.

    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "cine.npy")
    ...     np.save(path, np.arange(24, dtype=np.uint8).reshape(6, 2, 2))
    ...     with open_source(path) as source:
    ...         print(len(source), source.read([5, 0, 5])[:, 0, 0, 0].tolist())
    6 [20, 0, 20]
    """
    if channels not in (None, 1, 3):
        raise SettingError(f"open_source(channels={channels!r}) must be 1 (grey), 3 (RGB) or None (as stored)")
    path = Path(path)
    is_array = facts.container == "npy" if facts is not None else _is_array(path)
    kind = ArraySource if is_array else EncodedSource
    return kind(path, channels=channels, facts=facts)


def probe(
    path: str | Path,
    *,
    part: str | None = None,
    files: Sequence[str] = (),
    verify: Verify = "decode",
    reading: Reading = DEFAULT_READING,
) -> Facts:
    """Return what a video file holds.

    decode:   every frame is decoded; only this shows where a file breaks, and how its frames lie in time
    packets:  the file is read and not decoded, about 20 times faster; a file whose time stamps may not tell the order
              of its frames is decoded all the same

    A file that breaks keeps the frames before, and `facts.error` says where. Raises SourceError where no frame at all
    can be read.
    """
    if verify not in ("decode", "packets"):
        raise SettingError(f"probe(verify={verify!r}) is not a choice; {did_you_mean(verify, ['decode', 'packets'])}")
    path = Path(path)
    return probe_array(path) if _is_array(path) else probe_encoded(path, verify=verify)


def find_samples(root: Path, names: Sequence[str], *, reading: Reading) -> list[Found]:
    """Return the samples in some files under a folder: most files are one, some hold many, some are one frame of many.

    `names` are relative to `root`, with /.
    """
    return sorted(Found(name) for name in names)


def _is_array(path: Path) -> bool:
    """Tell a NumPy file by its first bytes; a `.npy` file without them is an error said aloud."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_NPY_MAGIC))
    except OSError:
        return False  # the decoder says what is wrong with it
    if start == _NPY_MAGIC:
        return True
    if path.suffix.lower() == ".npy":
        raise SourceError(f"{path}: is named .npy but does not begin as a NumPy file; it starts with {start!r}")
    return False
