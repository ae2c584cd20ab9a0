"""A format of our own: "OWN1", frames, height, width, bits and a rate, then the pixels."""

import struct
from pathlib import Path

import numpy as np

from cinefeed.video.arrays.array_frames import ArrayFrames
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.timestamps import FrameTimes

HEADER = struct.Struct("<4s4id")


def write(path, frames, *, rate_hz=20.0):
    count, height, width = frames.shape
    header = HEADER.pack(b"OWN1", count, height, width, 8 * frames.itemsize, rate_hz)
    Path(path).write_bytes(header + frames.tobytes())


def open_array(path):
    """The pixels as an array, of which nothing is read yet."""
    magic, count, height, width, bits, _ = HEADER.unpack(path.read_bytes()[: HEADER.size])
    if magic != b"OWN1":
        raise ValueError(f"it begins with {magic!r}")
    return np.memmap(path, f"uint{bits}", "r", HEADER.size, (count, height, width))


class OwnSource(ArrayFrames):
    """A source that knows the times of its frames."""

    def __init__(self, path):
        *_, rate_hz = HEADER.unpack(path.read_bytes()[: HEADER.size])
        self.video = open_array(path)
        count, height, width = self.video.shape
        times = FrameTimes(0.0, 1 / rate_hz, count)
        bits = 8 * self.video.itemsize
        super().__init__(
            path,
            metadata=VideoMetadata(height=height, width=width, channels=1, bits=bits, times=times, rate_hz=rate_hz),
        )

    def _numbers(self, number):
        return np.asarray(self.video[number])
