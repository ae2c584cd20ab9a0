"""Small videos of several codecs and containers, and what goes wrong in them: bytes, MP4 boxes, slices of a stream."""

import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from mutations import mutate

from cinefeed.testing import numbered_frames

COUNT, SIDE = 24, 64
_X264 = "-c:v libx264 -preset veryfast -sc_threshold 0 -g 8"
_X265 = "-c:v libx265 -preset ultrafast -x265-params log-level=none:scenecut=0:pools=1:frame-threads=1:keyint=8"
_STREAMS = {
    "closed.mp4": f"{_X264} -bf 0",
    "reordered.mp4": f"{_X264} -bf 2",
    "open.mkv": f"{_X264} -bf 3 -x264-params open-gop=1:b-pyramid=normal",
    "refresh.mp4": f"{_X264} -bf 0 -x264-params intra-refresh=1",
    "transport.ts": f"{_X264} -bf 2",
    "hevc.mp4": f"{_X265}:bframes=2:open-gop=0",
    "hevc_open.mkv": f"{_X265}:bframes=2:open-gop=1",
    "mpeg2.mpg": "-c:v mpeg2video -q:v 3 -g 8 -bf 2",
    "mpeg2.mp4": "-c:v mpeg2video -q:v 3 -g 8 -bf 2",
    "mpeg4.avi": "-c:v mpeg4 -q:v 3 -g 8 -bf 0",
    "mpeg4.mp4": "-c:v mpeg4 -q:v 3 -g 8 -bf 2",
    "vp9.webm": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 8",
}
# Codecs of which damage shows by memory, messages or history of the decoder only, and containers with few timestamps.
_OTHER_STREAMS = {
    "mjpeg.avi": "-c:v mjpeg -q:v 3 -pix_fmt yuvj420p",
    "ffv1.mkv": "-c:v ffv1 -g 8",
    "vp8.webm": "-c:v libvpx -deadline realtime -cpu-used 8 -g 8",
    "msmpeg4.avi": "-c:v msmpeg4 -q:v 3 -g 8",
    "flv1.flv": "-c:v flv1 -q:v 3 -g 8",
    "wmv2.asf": "-c:v wmv2 -q:v 3 -g 8",
    "theora.ogv": "-c:v libtheora -q:v 8 -g 8",
    "h264.avi": f"{_X264} -bf 0",
}
_BOXES_OF_BOXES = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"udta"})
_HEADER = {"h264": 5, "hevc": 6}  # bytes before a slice: the length of the unit, and its own header


def write_streams(folder: Path, *, others: bool = False) -> dict[str, Path]:
    """Write the healthy videos, by their names: noise moves over counted frames, so that every slice says something."""
    streams = _OTHER_STREAMS if others else _STREAMS
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 96, (SIDE, SIDE, 1), dtype=np.uint8)
    frames = numbered_frames(COUNT, height=SIDE, width=SIDE) // 2
    moving = np.stack([frame + np.roll(noise, 3 * n, axis=1) for n, frame in enumerate(frames)])
    for name, options in streams.items():
        command = f"ffmpeg -y -v error -f rawvideo -pix_fmt rgb24 -s {SIDE}x{SIDE} -r 25 -i - -threads 1 {options}"
        pixels = [] if "-pix_fmt" in options else ["-pix_fmt", "yuv420p"]
        command = [*command.split(), *pixels, "-flags", "+bitexact", str(folder / name)]
        subprocess.run(command, input=moving.astype(np.uint8).tobytes(), check=True)
    return {name: folder / name for name in streams}


class Span(NamedTuple):
    """Bytes of a file."""

    start: int
    end: int


def _boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Span]:
    """Yield the boxes of an MP4 file that hold no other ones, from their size on."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        if not 8 <= size <= end - start:
            return
        if kind in _BOXES_OF_BOXES:
            yield from _boxes(data, start + 8, start + size)
        elif kind != b"mdat":
            yield Span(start, start + size)
        start += size


def slices(path: Path) -> list[Span]:
    """Return where the packets of a video lie, without the header of their first unit."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        header = _HEADER.get(stream.codec_context.name, 4)
        places = [(packet.pos, packet.size) for packet in container.demux(stream) if packet.size and packet.pos]
    return [Span(pos + header, pos + size) for pos, size in places if size > header + 8]


def mutate_video(path: Path, spans: list[Span], *, seed: int) -> tuple[str, bytes]:
    """Return what was done, and the mutated file: the same for the same file and seed."""
    whole = path.read_bytes()
    rng = np.random.Generator(np.random.Philox(key=[seed, 17]))
    boxes = list(_boxes(whole)) if path.suffix == ".mp4" else []
    kind = rng.choice(["bytes", "box", "slice", "slice", "slice"]) if boxes else rng.choice(["bytes", "slice", "slice"])
    if kind == "bytes":
        return mutate(whole, seed=seed)
    data = bytearray(whole)
    if kind == "box":
        box = boxes[int(rng.integers(len(boxes)))]
        words = (box.end - box.start) // 4
        for _ in range(int(rng.integers(1, 4))):
            at = box.start + 4 * int(rng.integers(words))
            (value,) = struct.unpack_from(">I", data, at)
            changed = [value + 1, value - 1, value ^ 1 << int(rng.integers(32)), 0, int(rng.integers(64))]
            struct.pack_into(">I", data, at, changed[int(rng.integers(len(changed)))] & 0xFFFFFFFF)
        return f"box {bytes(whole[box.start + 4 : box.start + 8]).decode('latin-1')}", bytes(data)
    for _ in range(int(rng.integers(1, 4))):
        span = spans[int(rng.integers(len(spans)))]
        at = int(rng.integers(span.start, span.end))
        how = int(rng.integers(3))
        if how == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif how == 1:
            data[at] = int(rng.integers(256))
        else:
            data[at : min(at + 32, span.end)] = bytes(min(at + 32, span.end) - at)
    return "slice", bytes(data)
