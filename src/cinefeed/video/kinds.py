"""Detection of the kind of a file: by its first bytes or, if those are unknown, by its suffix.

All suffixes and magic numbers are here. Magic numbers are matched in the first KiB, which is read once; nothing is
probed.
"""

import os
import re
from functools import cache, lru_cache
from pathlib import Path

from cinefeed.core.plugins import invalid_plugin, plugins

START_BYTES = 1024
READER = "reader:"  # prefix of the kinds of readers that the user or a plug-in registers

_ENCODED = """
    .264 .265 .3g2 .3gp .apng .asf .avc .avi .divx .dv .f4v .flv .gif .h264 .h265 .hevc .ivf .m2ts .m2v .m4v .mjpeg
    .mjpg .mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf .nut .ogv .ts .vob .webm .wmv .y4m
"""
IMAGE_SUFFIXES = frozenset(".bmp .jp2 .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split())
_BY_SUFFIX = {
    ".npy": "npy",
    ".npz": "npz",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".nii": "nifti",
    ".nii.gz": "nifti",
    **dict.fromkeys((".dcm", ".dicom", ".ima"), "dicom"),
    **dict.fromkeys(_ENCODED.split(), "encoded"),
    **dict.fromkeys(IMAGE_SUFFIXES, "image"),
}
EXTENSIONS = frozenset(_BY_SUFFIX)
_own_suffixes: dict[str, str] = {}  # of readers registered by the user or a plug-in, which take precedence
_own_magic: dict[str, bytes] = {}
_compound = tuple(suffix for suffix in EXTENSIONS if suffix.count(".") > 1)
# Tables and text, which are common beside videos and never treated as video.
_BESIDE = frozenset(
    """
    .arrow .cfg .conf .csv .css .doc .docx .feather .htm .html .ini .ipynb .js .json .jsonl .lock .log .m .md .ods
    .parquet .py .r .rst .rtf .salt .sh .srt .tab .tex .toml .tsv .txt .vtt .xls .xlsx .xml .yaml .yml
    """.split()
)

# Suffixes that browsers, download managers and editors add to incomplete files and old copies.
_UNFINISHED = (".part", ".partial", ".filepart", ".crdownload", ".download", ".opdownload", ".tmp", ".temp", "~")

_READABLE = frozenset(["npy", "npz", "hdf5", "nifti", "dicom", "tiff", "webp", "encoded"])

_ANIMATED = b"[" + b"".join(rb"\x%02x" % flags for flags in range(256) if flags & 2) + b"]"  # of a WebP's flags

_NO_TEXT = rb"(?=.{0,187}[\0-\x08\x80-\xff])"  # a table of lines of equal length may repeat any letter

# Kind, offset of the magic number, and magic number. The first match is used, so the order matters if a file can match
# two: `ftyp` after a size may begin like MPEG, and MPEG-TS repeats a letter that also begins text and GIF.
_MAGIC: tuple[tuple[str, int, bytes], ...] = (
    ("npy", 0, rb"\x93NUMPY"),
    ("hdf5", 0, rb"\x89HDF\r\n\x1a\n"),
    ("tiff", 0, rb"II\*\0|MM\0\*|II\+\0|MM\0\+"),
    ("npz", 0, rb"PK\x03\x04.{26}[^/\0]{1,255}\.npy"),
    ("nifti", 0, rb"(?:\x5c\x01\0\0|\0\0\x01\x5c).{340}n\+1\0"),
    ("nifti", 4, rb"n\+2\0\r\n\x1a\n"),
    ("HDF5 behind other data, as MATLAB writes it", 512, rb"\x89HDF\r\n\x1a\n"),
    ("audio", 4, rb"ftypM4[ABP] "),
    ("image that cannot be read", 4, rb"ftyp(?:heic|heix|heim|heis|mif1|avif|crx |jp2 |jpx )"),
    ("encoded", 4, rb"ftyp"),
    ("encoded", 0, rb"[\0-\x08]...(?:moov|mdat|wide|free|skip|pnot)"),
    ("encoded", 0, rb"\x1aE\xdf\xa3.{0,64}(?:webm|matroska)"),
    ("encoded", 0, rb"RIFF....AVI[ X\x19]"),
    ("encoded", 0, rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),  # ASF
    ("encoded", 0, rb"FLV\x01"),
    ("encoded", 0, rb"OggS.{0,1000}(?:\x80theora|OVP80|BBCD)"),
    ("encoded", 0, rb"DKIF\0\0"),
    ("encoded", 0, rb"nut/multimedia container\0"),
    ("encoded", 0, rb"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02"),  # MXF
    ("encoded", 0, rb"YUV4MPEG2 "),
    ("encoded", 0, rb"GIF8[79]a"),
    ("encoded", 0, rb"\x89PNG\r\n\x1a\n.{0,900}acTL"),
    ("webp", 0, rb"RIFF....WEBPVP8X...." + _ANIMATED),
    ("encoded", 0, rb"\0\0\x01[\xb3\xba\xb0]"),  # MPEG-1, -2 and -4, bare or in a program stream
    ("encoded", 0, rb"\0?\0\0\x01(?:[\x67\x27\x47][\x42\x4d\x58\x64\x6e\x7a\xf4]|\x09[\x10-\xf0]\0)"),  # H.264
    ("encoded", 0, rb"\0?\0\0\x01[\x40\x42\x46]\x01"),  # HEVC
    ("encoded", 0, _NO_TEXT + rb"(?:\x47..[\x10-\x3f].{184}){5}"),  # MPEG-TS
    ("encoded", 0, _NO_TEXT + rb"(?:.{4}\x47..[\x10-\x3f].{184}){5}"),  # the same with a timestamp before each packet
    ("encoded", 0, rb"\x1f\x07\0[\x3f\xbf]"),  # DV
    ("image", 0, rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF....WEBP|\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
    ("audio", 0, rb"RIFF....WAVE|ID3|fLaC|OggS|\xff[\xf1\xf9\xfb\xf3]"),
    ("PDF", 0, rb"%PDF"),
    ("archive", 0, rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!"),
)
# One pattern, whose groups are the kinds, takes 5 us per file; matching them one by one takes 30.
_ANY_MAGIC = re.compile(b"|".join(b"(.{%d}(?:%b))" % (place, magic) for _, place, magic in _MAGIC), re.DOTALL)
_DICOM, _DICOM_AT, _META_GROUP = b"DICM", 128, b"\x02\0"
_DIRECTORY = b"\x02\0\x02\0UI\x14\x001.2.840.10008.1.3.10"  # the element with the storage class of a DICOMDIR


def known_suffix(path: str | Path) -> str | None:
    """Return the lower-case suffix by which a scan treats a file as video, or None.

    >>> known_suffix("studies/7/4ch.v2.MP4"), known_suffix("notes.txt")
    ('.mp4', None)
    """
    _find_plugins()
    name = str(path).rpartition("/")[2].lower().lstrip(".")
    suffix = next((each for each in _compound if name.endswith(each)), suffix_of(name))
    return suffix if suffix in EXTENSIONS or suffix in _own_suffixes else None


def kind_by_suffix(path: str | Path) -> str | None:
    """Return the kind of a suffix, None if the suffix is unknown."""
    suffix = known_suffix(path) or ""
    return _own_suffixes.get(suffix) or _BY_SUFFIX.get(suffix)


def own_kind(path: str | Path) -> str | None:
    """Return the kind of a reader that the user or a plug-in has for the suffix, None if there is none."""
    _find_plugins()
    return _own_suffixes.get(known_suffix(path) or "") if _own_suffixes else None


def extensions() -> frozenset[str]:
    """Return all suffixes of files that are treated as video."""
    _find_plugins()
    return EXTENSIONS | _own_suffixes.keys()


def is_readable(kind: str | None) -> bool:
    """Return whether files with the first bytes of this kind can be read, built in or by a registered reader."""
    return kind in _READABLE or kind in _own_magic


def register_kind(kind: str, *, suffixes: tuple[str, ...], magic: bytes) -> None:
    """Assign a kind to files with these suffixes, and to files that begin with `magic` unless it is empty."""
    _find_plugins()
    _own_suffixes.update(dict.fromkeys(suffixes, kind))
    if magic:
        _own_magic[kind] = magic
    _update_compound()


def unregister_kind(kind: str) -> None:
    """Undo `register_kind`."""
    for suffix in [suffix for suffix, owner in _own_suffixes.items() if owner == kind]:
        del _own_suffixes[suffix]
    _own_magic.pop(kind, None)
    _update_compound()


@cache
def _find_plugins() -> None:
    """Assign the suffixes of plug-ins to their kinds, once. Raises PluginError."""
    readers = plugins("readers", builtin=EXTENSIONS)
    for name, reader in readers.items():
        if name != name.lower() or not name[:1] == "." or not name[1:]:
            raise invalid_plugin(reader, "named by a suffix in lower case, such as '.cine'")
    _own_suffixes.update({name: READER + name[1:] for name in readers})
    _update_compound()


def _update_compound() -> None:
    global _compound
    _compound = tuple(suffix for suffix in EXTENSIONS | _own_suffixes.keys() if suffix.count(".") > 1)


def is_beside(path: str | Path) -> bool:
    """Return whether a suffix is that of a table or a text, which a scan does not open.

    >>> is_beside("labels.CSV"), is_beside("IM000001")
    (True, False)
    """
    return suffix_of(path) in _BESIDE


def is_unfinished(path: str | Path) -> bool:
    """Return whether a name is that of an incomplete download or of an editor's backup.

    >>> is_unfinished("4ch.mp4.PART"), is_unfinished("4ch.mp4~"), is_unfinished("part.mp4")
    (True, True, False)
    """
    return str(path).lower().endswith(_UNFINISHED)


def suffix_of(path: str | Path) -> str:
    """Return `Path(path).suffix.lower()`, in a tenth of the time."""
    stem, dot, suffix = str(path).rpartition("/")[2].rpartition(".")
    return f"{dot}{suffix.lower()}" if stem else ""


def kind_by_content(start: bytes) -> str | None:
    r"""Return the kind shown by the first KiB of a file: a readable kind, "dicomdir", any other description, or None.

    DICOM has precedence: the 128 bytes before its marker are free, and may be those of another format, such as TIFF.
    In that case the marker must be followed by the group that DICOM requires, so that pixels are not mistaken for it.

    >>> kind_by_content(b"II*\0" + bytes(124) + b"DICM\2\0"), kind_by_content(b"\x1aE\xdf\xa3 webm")
    ('dicom', 'encoded')
    """
    for kind, magic in _own_magic.items():
        if start.startswith(magic):
            return kind
    match = _ANY_MAGIC.match(start)
    other = None if match is None or match.lastindex is None else _MAGIC[match.lastindex - 1][0]
    mark, group = start[_DICOM_AT : _DICOM_AT + 4], start[_DICOM_AT + 4 : _DICOM_AT + 6]
    if mark == _DICOM and (other is None or group == _META_GROUP):
        return "dicomdir" if _DIRECTORY in start else "dicom"
    return other


def is_video(path: Path) -> bool:
    """Return whether a scan treats a file as a video or part of one; an unreadable file may be one."""
    if kind_by_suffix(path):
        return True
    if is_beside(path) or is_unfinished(path):
        return False
    try:
        return is_readable(kind_by_content(read_start(path)))
    except OSError:
        return True


def is_animated(start: bytes) -> bool:
    r"""Return whether a PNG or WebP image, given by its first KiB, is animated.

    >>> is_animated(b"RIFF....WEBPVP8X....\2"), is_animated(b"RIFF....WEBPVP8X....\0")
    (True, False)
    """
    if start.startswith(b"\x89PNG"):
        return b"acTL" in start
    return start[8:16] == b"WEBPVP8X" and bool(start[20:21] and start[20] & 2)


def misnamed_image(path: str | Path) -> str:
    """Return a description of a file with an image suffix and other content; "" if it may be an image."""
    try:
        content = kind_by_content(read_start(path))
    except OSError:
        return ""
    if content in (None, "image", "tiff", "webp"):
        return ""
    return f"{'video' if content == 'encoded' else content} named as an image ({suffix_of(path)})"


def read_start(path: str | Path) -> bytes:
    """Return the first KiB of a file. Raises OSError."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))  # takes a third of the time of `open`
    try:
        return os.read(file, START_BYTES)
    finally:
        os.close(file)


def kind_in_words(path: str, kind: str | None) -> str:
    """Return the description of an unread file for a summary: its content, else its suffix.

    >>> kind_in_words("a/b.xyz", None), kind_in_words("1.2.840.113", None), kind_in_words("0001", "image")
    ('.xyz', 'without a suffix', 'image without a suffix')
    """
    return _in_words(suffix_of(path), kind)


@lru_cache(maxsize=256)
def _in_words(suffix: str, kind: str | None) -> str:
    if not re.fullmatch(r"\.[a-z0-9_-]*[a-z][a-z0-9_-]*", suffix) or len(suffix) > 12:  # "1.2.840" has no suffix
        suffix = ""
    if kind is None:
        return suffix or "without a suffix"
    return f"{kind} ({suffix})" if suffix else f"{kind} without a suffix"
