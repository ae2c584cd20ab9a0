"""A reader of `.rawcine`: a line of JSON with shape and dtype, then the pixels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def open_rawcine(path: Path) -> NDArray[Any]:
    """Return a video, (frames, height, width), of which nothing is read yet. Raises ValueError for another file."""
    with path.open("rb") as file:
        header = json.loads(file.readline(4096))
        return np.memmap(path, header["dtype"], "r", file.tell(), tuple(header["shape"]))


def write_rawcine(path: Path, video: NDArray[Any]) -> None:
    """Write a video, (frames, height, width)."""
    header = json.dumps({"shape": video.shape, "dtype": video.dtype.str})
    path.write_bytes(header.encode() + b"\n" + video.tobytes())
