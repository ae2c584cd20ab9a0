"""What goes wrong with files, as pure functions of their bytes and a seed."""

import gzip
import io
import zipfile
from collections.abc import Callable

import numpy as np

# Sizes and counts that a parser trusts: none, the largest, the most negative.
_EXTREMES = [bytes.fromhex(each) for each in "00000000 ffffffff 7fffffff ffffff7f 80000000 00000080".split()]


def _place(rng: np.random.Generator, size: int) -> int:
    """Return a place in a file: half the time in the first or last 512 bytes, where headers and indices lie."""
    near = int(rng.integers(0, min(512, size)))
    return [near, size - 1 - near, int(rng.integers(0, size)), int(rng.integers(0, size))][int(rng.integers(0, 4))]


def flip_bits(data: bytearray, rng: np.random.Generator) -> bytearray:
    for _ in range(int(2 ** rng.uniform(0, 6))):
        data[_place(rng, len(data))] ^= 1 << int(rng.integers(0, 8))
    return data


def cut_off(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: _place(rng, len(data))]


def zero_a_block(data: bytearray, rng: np.random.Generator) -> bytearray:
    start = _place(rng, len(data))
    end = min(start + 1 + int(2 ** rng.uniform(0, np.log2(len(data)))), len(data))
    data[start:end] = bytes(end - start)
    return data


def swap_chunks(data: bytearray, rng: np.random.Generator) -> bytearray:
    size = 1 + int(2 ** rng.uniform(0, np.log2(len(data) / 4)))
    one, other = (int(each) for each in rng.integers(0, len(data) - size, 2))
    data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]
    return data


def insert_junk(data: bytearray, rng: np.random.Generator) -> bytearray:
    start = _place(rng, len(data))
    return data[:start] + rng.bytes(1 + int(2 ** rng.uniform(0, 12))) + data[start:]


def write_extremes(data: bytearray, rng: np.random.Generator) -> bytearray:
    for _ in range(int(rng.integers(1, 4))):
        start = _place(rng, len(data))
        data[start : start + 4] = _EXTREMES[int(rng.integers(0, len(_EXTREMES)))]
    return data


KINDS: list[Callable[[bytearray, np.random.Generator], bytearray]] = [
    flip_bits,
    cut_off,
    zero_a_block,
    swap_chunks,
    insert_junk,
    write_extremes,
]


def mutate(whole: bytes, *, seed: int) -> tuple[str, bytes]:
    """Return what was done, and the mutated file: the same for the same bytes and seed.

    A gzip or zip file is mutated inside half the time: outside, its checksums alone would be tried.
    """
    rng = np.random.Generator(np.random.Philox(key=seed))
    change = KINDS[int(rng.integers(0, len(KINDS)))]
    inside = {b"\x1f\x8b": _inside_gzip, b"PK": _inside_zip}.get(whole[:2])
    if inside is not None and rng.random() < 0.5:
        return f"{change.__name__} inside", inside(whole, lambda data: bytes(change(bytearray(data), rng)))
    return change.__name__, bytes(change(bytearray(whole), rng))


def _inside_gzip(whole: bytes, change: Callable[[bytes], bytes]) -> bytes:
    return gzip.compress(change(gzip.decompress(whole)), mtime=0)


def _inside_zip(whole: bytes, change: Callable[[bytes], bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as before, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as after:
        for name in before.namelist():
            after.writestr(zipfile.ZipInfo(name), change(before.read(name)))
    return packed.getvalue()
