"""Small video files of every container, codec and fault, made by the `ffmpeg` program, which also decodes them.

A stream is encoded once and copied into every container that takes it; a fault is made on the way or in the bytes.
"""

import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cinefeed.testing import numbered_frames

COUNT, HEIGHT, WIDTH, RATE_HZ = 48, 48, 64, 25

_X264 = "-c:v libx264 -threads 1 -preset veryfast -sc_threshold 0"
_X265 = (
    "-c:v libx265 -preset ultrafast -x265-params "
    "log-level=none:scenecut=0:pools=1:frame-threads=1:keyint=12:min-keyint=12"
)
_MPEG = "-threads 1 -sc_threshold 1000000000 -q:v 3"
_VPX = "-threads 1 -b:v 200k"
_HIDDEN = "-deadline good -cpu-used 1 -g 24 -auto-alt-ref 1 -lag-in-frames 12"
_STREAMS = {
    "h264": f"{_X264} -g 12 -bf 0",
    "h264_b": f"{_X264} -g 12 -bf 2",
    "h264_open": f"{_X264} -g 12 -bf 3 -x264-params open-gop=1:b-adapt=0:b-pyramid=normal",
    "h264_long": f"{_X264} -g 250 -bf 2",
    "h264_refresh": f"{_X264} -g 12 -bf 0 -x264-params intra-refresh=1",
    "hevc": f"{_X265}:bframes=0:open-gop=0",
    "hevc_open": f"{_X265}:bframes=3:b-adapt=0:open-gop=1",
    "mpeg1_b": f"-c:v mpeg1video {_MPEG} -g 12 -bf 2",
    "mpeg2": f"-c:v mpeg2video {_MPEG} -g 12 -bf 0",
    "mpeg2_b": f"-c:v mpeg2video {_MPEG} -g 12 -bf 2",
    "mpeg2_long": f"-c:v mpeg2video {_MPEG} -g 250 -bf 2",
    "mpeg4": f"-c:v mpeg4 {_MPEG} -g 12 -bf 0",
    "mpeg4_b": f"-c:v mpeg4 {_MPEG} -g 12 -bf 2",
    "mpeg4_long": f"-c:v mpeg4 {_MPEG} -g 250 -bf 2",
    "vp8": f"-c:v libvpx {_VPX} -deadline realtime -cpu-used 8 -g 12",
    "vp8_hidden": f"-c:v libvpx {_VPX} {_HIDDEN}",
    "vp9": f"-c:v libvpx-vp9 {_VPX} -deadline realtime -cpu-used 8 -g 12",
    "vp9_hidden": f"-c:v libvpx-vp9 {_VPX} {_HIDDEN}",
    "av1": "-c:v libaom-av1 -threads 1 -cpu-used 8 -b:v 200k -g 12 -lag-in-frames 8",
    "mjpeg": "-c:v mjpeg -threads 1 -q:v 3 -pix_fmt yuvj420p",
    "ffv1": "-c:v ffv1 -threads 1 -g 12",
    "theora": "-c:v libtheora -q:v 8 -g 12",
    "raw": "-c:v rawvideo",
    "gif": "-c:v gif -pix_fmt gray",
}
# The containers that take a codec; the part after a stream's first _ is of no matter.
_CONTAINERS = {
    "h264": "mp4 mov mkv avi ts m2ts mpg vob flv asf 3gp mxf nut h264",
    "hevc": "mp4 mov mkv ts mpg nut hevc",
    "mpeg1": "mpg vob mkv avi mov ts mpeg1video",
    "mpeg2": "mpg vob ts m2ts mkv avi mov mp4 mxf asf m2v",
    "mpeg4": "mp4 mov mkv avi ts asf 3gp nut m4v",
    "vp8": "webm mkv avi ivf ogg nut",
    "vp9": "webm mkv mp4 ivf nut avi",
    "av1": "mp4 mkv webm ivf obu",
    "mjpeg": "avi mov mkv mp4 mxf asf nut mjpeg",
    "ffv1": "mkv avi mov nut mxf",
    "theora": "ogg mkv nut",
    "raw": "y4m avi mkv nut",
    "gif": "gif",
}
_FORMATS = {"m4v": "m4v", "mpg": "mpeg", "m2ts": "mpegts", "mpeg1video": "mpeg1video", "m2v": "mpeg2video"}
_SOUND = {"webm": "libopus", "ogg": "libvorbis", "mxf": "pcm_s16le -ar 48000", "asf": "wmav2", "nut": "mp2"}
_SOUND |= dict.fromkeys("ts m2ts mpg vob avi mov".split(), "mp2")
_BARE = frozenset("h264 hevc m2v mpeg1video m4v mjpeg ivf obu y4m gif".split())
_MP4 = frozenset("mp4 mov 3gp".split())
_CUT_ANYWHERE = frozenset("ts m2ts mpg vob h264 hevc m2v mpeg1video m4v".split())


@dataclass(frozen=True)
class Fault:
    """How a copy of a stream is spoilt: options for the `ffmpeg` program before its input and its output, and bytes."""

    inputs: str = ""
    outputs: str = ""
    of: str = "stream"  # the file that is copied: the stream, or "cut" (TS, begins in mid-GOP) or "avi"
    suffixes: frozenset[str] = frozenset()  # containers in which it can be made; empty: in all but bare streams
    spoil: Callable[[bytes], bytes] = bytes
    streams: str = ""  # how the names of the streams begin of which it can be made


class Case(NamedTuple):
    """A stream, a fault and a container."""

    stream: str
    fault: str
    suffix: str

    @property
    def name(self) -> str:
        """The name of the file."""
        return ".".join(self)


def _setts(stamp: str) -> str:
    """Return the option that maps the stamps of packets, both, by a rising function of x in frames."""
    x = {name: f"({name}*TB*{RATE_HZ})" for name in ("PTS", "DTS")}
    mapped = (f"{name.lower()}={stamp.replace('x', x[name])}/TB/{RATE_HZ}" for name in ("PTS", "DTS"))
    return "-bsf:v setts=" + ":".join(each.replace(",", "\\,") for each in mapped)


def _without_time_scale(data: bytes) -> bytes:
    """Set the time scale of an AVI or MP4 file to 0."""
    whole = bytearray(data)
    if data[:4] == b"RIFF":
        struct.pack_into("<I", whole, data.index(b"strh") + 8 + 20, 0)
    else:
        struct.pack_into(">I", whole, data.index(b"mdhd") + 16, 0)
    return bytes(whole)


def _all_keys(data: bytes) -> bytes:
    """Call every frame a key frame."""
    if data[:4] != b"RIFF":
        return data.replace(b"stss", b"free")
    whole, at = bytearray(data), data.rindex(b"idx1")
    for entry in range(at + 8, at + 8 + struct.unpack_from("<I", data, at + 4)[0], 16):
        whole[entry + 4] |= 0x10
    return bytes(whole)


FAULTS = {
    "plain": Fault(suffixes=frozenset({*_FORMATS, *_BARE, *" ".join(_CONTAINERS.values()).split()})),
    "first_stamp_8_s": Fault(outputs="-output_ts_offset 8.333"),
    "first_stamp_a_day": Fault(outputs="-output_ts_offset 90000"),
    "clock_wraps": Fault(outputs="-output_ts_offset 95442.9", suffixes=frozenset("ts m2ts mpg vob".split())),
    "uneven": Fault(
        outputs=_setts("(2*x+0.4*mod(round(x)*3,4))"), suffixes=frozenset("mp4 mov mkv webm ts flv asf nut 3gp".split())
    ),
    "one_shown_long": Fault(outputs=_setts("(x+30*gte(x,20))")),
    "some_shown_late": Fault(outputs=_setts("(x+0.5*gte(x,20))")),
    "sound_first": Fault(inputs="-itsoffset 0.7"),
    "sound": Fault(inputs="-itsoffset 0"),
    "begins_in_mid_gop": Fault(of="cut", outputs="-copyinkf"),
    "copied_from_mid_gop": Fault(outputs="-ss 0.41 -copyinkf"),
    "bytes_lost_first": Fault(
        spoil=lambda data: data[188 * 11 if data[:1] == b"G" else 1500 :], suffixes=_CUT_ANYWHERE
    ),
    "cut_by_an_edit_list": Fault(inputs="-ss 0.7", suffixes=_MP4 | {"mkv"}),
    "no_edit_list": Fault(outputs="-use_editlist 0", suffixes=_MP4),
    "negative_offsets": Fault(outputs="-movflags negative_cts_offsets", suffixes=_MP4),
    "fragments": Fault(outputs="-movflags frag_keyframe+empty_moov", suffixes=_MP4),
    "decoding_stamps_alone": Fault(of="avi", suffixes=frozenset("mkv mov mp4 asf nut".split())),
    "some_without_stamps": Fault(outputs="-bsf:v setts=pts=if(mod(N\\,3)\\,NOPTS\\,PTS)"),
    "hidden_frames_apart": Fault(
        outputs="-bsf:v vp9_superframe_split", suffixes=frozenset({"avi", "nut"}), streams="vp9"
    ),
    "no_index": Fault(outputs="-live 1", suffixes=frozenset({"mkv", "webm"})),
    "end_lost": Fault(
        outputs="-movflags faststart",
        spoil=lambda data: data[: len(data) * 4 // 5],
        suffixes=frozenset("mp4 mkv avi ts mpg flv asf webm h264".split()),
    ),
    "twice": Fault(spoil=lambda data: data * 2, suffixes=_CUT_ANYWHERE),
    "no_time_scale": Fault(outputs="-use_editlist 0", suffixes=frozenset({"mp4", "avi"}), spoil=_without_time_scale),
    "all_key_flags": Fault(suffixes=frozenset({"mp4", "avi"}), spoil=_all_keys),
}


def ffmpeg(*arguments: object, stdin: bytes = b"") -> bytes:
    """Run the `ffmpeg` program on what it is `given`, and return what it writes. Raises RuntimeError if it fails."""
    command = ["ffmpeg", "-y", "-v", "error", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True)
    if done.returncode:
        raise RuntimeError(done.stderr.decode()[-300:])
    return done.stdout


class Kitchen:
    """A folder in which streams are encoded once, and copied into files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._source = folder / "source.y4m"
        frames = numbered_frames(COUNT, height=HEIGHT, width=WIDTH)
        size = f"-f rawvideo -pix_fmt rgb24 -video_size {WIDTH}x{HEIGHT} -framerate {RATE_HZ}"
        ffmpeg(*size.split(), "-i", "-", "-pix_fmt", "yuv420p", self._source, stdin=frames.tobytes())

    def stream(self, name: str, kind: str = "stream") -> Path:
        """Return a file that holds a stream, encoded at the first call."""
        if kind == "cut":
            return self._cut(name)
        path = self.folder / f"{name}.{'avi' if kind == 'avi' else 'nut'}"
        if not path.exists():
            if kind == "avi":
                ffmpeg("-i", self.stream(name), "-c", "copy", path)
            else:
                arguments = ["-i", self._source, *f"-pix_fmt yuv420p {_STREAMS[name]}".split()]
                if name.endswith("_hidden"):  # the encoder hides frames in the second of two passes alone
                    arguments += ["-passlogfile", self.folder / name, "-pass"]
                    ffmpeg(*arguments, 1, "-f", "null", "-")
                    arguments.append(2)
                ffmpeg(*arguments, path)
        return path

    def _cut(self, name: str) -> Path:
        """Return a transport stream without its first 16 packets of 188 bytes."""
        path = self.folder / f"{name}.cut.ts"
        if not path.exists():
            whole = self.folder / f"{name}.whole.ts"
            ffmpeg("-i", self.stream(name), "-c", "copy", "-bsf:v", "dump_extra", whole)
            path.write_bytes(whole.read_bytes()[188 * 11 :])
        return path

    def make(self, case: Case, folder: Path) -> Path:
        """Return a file with a fault. Raises RuntimeError where the program makes no such file."""
        suffix, recipe, path = case.suffix, FAULTS[case.fault], folder / case.name
        inputs = [*recipe.inputs.split(), "-i", self.stream(case.stream, recipe.of)]
        outputs = ["-map", "0:v", "-c:v", "wrapped_avframe" if suffix == "y4m" else "copy", *recipe.outputs.split()]
        if suffix in _CUT_ANYWHERE and recipe.of == "stream":  # these have no header for all: it goes into the stream
            filters = [each for each in outputs if each.startswith("setts")]
            outputs += ["-bsf:v", ",".join([*filters, "dump_extra"])]
        if case.fault.startswith("sound"):
            inputs += ["-f", "lavfi", "-i", f"sine=440:sample_rate=48000:duration={COUNT / RATE_HZ + 0.7}"]
            outputs += ["-map", "1:a", "-c:a", *_SOUND.get(suffix, "aac").split()]
        form = ["-f", _FORMATS[suffix]] if suffix in _FORMATS else []
        ffmpeg(*inputs, *outputs, *form, path)
        path.write_bytes(recipe.spoil(path.read_bytes()))
        return path


def cases() -> list[Case]:
    """Return all that can be tried."""
    return [
        Case(name, fault, suffix)
        for name in _STREAMS
        for fault, recipe in FAULTS.items()
        for suffix in _CONTAINERS[name.partition("_")[0]].split()
        if (suffix in recipe.suffixes if recipe.suffixes else suffix not in _BARE) and name.startswith(recipe.streams)
    ]


def truth(path: Path) -> np.ndarray:
    """Return luma, (frames, height, width), of every frame that the `ffmpeg` program decodes of a file."""
    grey = "format=gray" if path.suffix == ".gif" else "format=yuv420p|yuvj420p|yuv422p|yuv444p,extractplanes=y"
    options = "-map 0:v:0 -fps_mode passthrough -f rawvideo".split()
    raw = ffmpeg("-noautorotate", "-threads", 1, "-i", path, "-vf", grey, *options, "-")
    frames = np.frombuffer(raw, np.uint8).reshape(-1, HEIGHT, WIDTH)
    if not len(frames):
        raise RuntimeError(f"{path}: the program decodes no frame")
    return frames
