"""H.264 pictures that are missing, by the numbers in their headers, and pictures after which numbers start again."""

import re
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from test_packets import COUNT, edited, lengths_and_units

from cinefeed import open_video, probe
from cinefeed.core.errors import DecodeError
from cinefeed.testing import numbered_frames, read_number, write_video

GOP, RESET = 24, 10
# Baseline: no arithmetic coding, whose data would have to be aligned after a longer header.
BASELINE = {"preset": "veryfast", "profile": "baseline", "sc_threshold": "0", "threads": "1", "refs": "1"}


def bits_of(unit: bytes) -> str:
    payload = unit.replace(b"\0\0\3", b"\0\0")
    return "".join(f"{byte:08b}" for byte in payload)


def unit_of(bits: str) -> bytes:
    """Return a NAL unit of bits up to its stop bit, with the bytes that keep it from looking like a start code."""
    padded = bits + "0" * (-len(bits) % 8)
    payload = int(padded, 2).to_bytes(len(padded) // 8)
    return re.sub(b"\0\0(?=[\0-\3])", b"\0\0\3", payload)


def after_codes(bits: str, at: int, count: int) -> int:
    """Return the place after some numbers in Exp-Golomb code."""
    for _ in range(count):
        zeros = bits.index("1", at) - at
        at += 2 * zeros + 1
    return at


def changed_slice(unit: bytes, *, number: int, number_bits: int, resets: bool) -> bytes:
    """Return a P slice with another `frame_num`, and the operation by which all numbers start again."""
    bits = bits_of(unit)
    at = after_codes(bits, 8, 3)
    bits = bits[:at] + f"{number:0{number_bits}b}" + bits[at + number_bits :]
    at += number_bits + 1  # the order of display follows from the number; no other count of references
    assert bits[at - 1 : at + 2] == "000"  # the default list of references, and no operation
    marking = "1" + "00110" + "1" if resets else "0"
    return unit_of(bits[: at + 1] + marking + bits[at + 2 :])


def with_reset(packets: list[bytes], keys: list[bool]) -> list[bytes]:
    """Let the numbers of the first GOP start again after one of its pictures."""
    for place in range(RESET, GOP):
        units = lengths_and_units(packets[place])
        number = place if place == RESET else place - RESET
        units = [
            changed_slice(unit, number=number % 16, number_bits=4, resets=place == RESET) if unit[0] & 31 == 1 else unit
            for unit in units
        ]
        packets[place] = b"".join(len(unit).to_bytes(4) + unit for unit in units)
    return packets


def without(place: int) -> Callable[[list[bytes], list[bool]], list[bytes | None]]:
    return lambda packets, keys: [None if place == each else data for each, data in enumerate(packets)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    frames = numbered_frames(COUNT, height=48, width=64)
    return write_video(tmp_path_factory.mktemp("whole") / "v.mp4", frames, gop=GOP, options=BASELINE)


def decoded_numbers(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [read_number(frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_numbers_that_start_again_are_no_gap(whole, tmp_path, suffix):
    path = edited(whole, tmp_path / f"v.{suffix}", with_reset)
    assert decoded_numbers(path) == list(range(COUNT))
    for verify in ("decode", "packets"):
        metadata = probe(path, verify=verify)
        assert (metadata.times.count, metadata.damaged.tolist()) == (COUNT, [])
        with open_video(path, metadata=metadata) as source:
            assert [read_number(frame) for frame in source.read([9, 10, 11, 23, 24])] == [9, 10, 11, 23, 24]


def test_a_missing_picture_after_such_a_start_is_a_gap(whole, tmp_path):
    reset = edited(whole, tmp_path / "reset.mp4", with_reset)
    path = edited(reset, tmp_path / "v.mp4", without(RESET + 3))
    assert probe(path).damaged.tolist() == [[RESET + 3, GOP - 1]]


def with_matrices(packets: list[bytes], keys: list[bool]) -> list[bytes]:
    """State scaling matrices of 16 in the parameters of the sequence, which change no pixel, as some cameras do."""
    eight, minus_sixteen = "000010000", "00000100001"
    whole, cut_short, as_before = "1" + eight + "1" * 15, "1" + eight + minus_sixteen, "0"
    matrices = (whole + 2 * as_before) * 2 + 2 * cut_short
    for place in (place for place, key in enumerate(keys) if key):
        before, unit, rest = re.split(b"(?<=\0\0\1)(\x67.*?)(?=\0\0\0?\1)", packets[place], flags=re.DOTALL)
        bits = bits_of(unit).rstrip("0")
        at = after_codes(bits, 32, 4) + 1  # after number, chroma, both bit depths, and the bit for lossless
        assert bits[at] == "0"
        packets[place] = before + unit_of(bits[:at] + "1" + matrices + bits[at + 1 :]) + rest
    return packets


def test_parameters_with_scaling_matrices_are_parsed(tmp_path):
    frames, high = numbered_frames(COUNT, height=48, width=64), BASELINE | {"profile": "high"}
    plain = write_video(tmp_path / "plain.ts", frames, gop=GOP, options=high)
    path = edited(plain, tmp_path / "v.ts", with_matrices)
    assert decoded_numbers(path) == list(range(COUNT))
    assert probe(path).damaged.tolist() == []
    cut, expected = (edited(each, tmp_path / f"cut_{each.name}", without(10)) for each in (path, plain))
    assert probe(cut).damaged.tolist() == probe(expected).damaged.tolist() != []


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("gop", [3, 6, GOP])
def test_a_missing_key_frame_is_reported(tmp_path, suffix, gop):
    """FFmpeg leaves out the pictures that refer to it, up to the sixth or up to the last before the next key frame."""
    frames = numbered_frames(COUNT, height=48, width=64)
    whole = write_video(tmp_path / "whole.mp4", frames, gop=gop, options=BASELINE)
    path = edited(whole, tmp_path / f"v.{suffix}", without(gop))
    numbers, metadata, left_out = decoded_numbers(path), probe(path), min(gop - 2, 6)
    assert len(numbers) == COUNT - 1 - left_out
    assert metadata.error == (
        f"lacks pictures: a reference picture is missing, and FFmpeg leaves out {left_out} that follow it"
    )
    assert metadata.damaged.tolist() == [[gop, len(numbers) if gop == GOP else gop + 1]]
    assert probe(path, verify="packets").times.count == len(numbers)
    with open_video(path, metadata=metadata) as source:
        assert read_number(source.read([gop - 1])[0]) == gop - 1
        with pytest.raises(DecodeError, match="which is damaged"):
            source.read([gop])
