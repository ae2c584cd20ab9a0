"""A codec of packed data sets: how a plane of a frame becomes bytes, and back."""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


class ZlibCodec:
    """Planes without loss, compressed by zlib."""

    is_lossless = True

    def encode(self, plane: NDArray[Any], /) -> bytes:
        """Return a plane as bytes."""
        return zlib.compress(plane.astype(plane.dtype.newbyteorder("<")).tobytes(), 6)

    def decode(self, data: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any], /) -> NDArray[Any]:
        """Return the plane of `encode`."""
        return np.frombuffer(zlib.decompress(data), dtype).reshape(shape)


zlib_codec = ZlibCodec()
