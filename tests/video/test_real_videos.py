"""Every encoded file in facts.csv: the frames of a source equal those of a full decode by plain PyAV, bit for bit."""

import csv
import hashlib
from pathlib import Path

import av
import numpy as np
import pytest

from cinefeed import open_video, probe
from cinefeed.core.rng import Stage, rng_for
from cinefeed.video.ffmpeg.pixel_formats import plane_layout, planes_of
from cinefeed.video.orientation import stored_size

DATA = Path(__file__).parents[3] / "shared" / "data"


def recorded() -> list[dict[str, str]]:
    table = DATA / "facts.csv"
    if not table.exists():
        return []
    with table.open() as lines:
        return list(csv.DictReader(lines))


def is_fast(row: dict[str, str]) -> bool:
    """Every file but `lips`, of which every 15th is taken: they are all alike."""
    return not row["path"].startswith("lips/") or int(Path(row["path"]).stem) % 15 == 0


FAST = [row for row in recorded() if is_fast(row)]
SLOW = [row for row in recorded() if not is_fast(row)]


def digest(planes) -> bytes:
    return hashlib.blake2b(b"".join(np.ascontiguousarray(plane) for plane in planes), digest_size=16).digest()


def full_decode(path: Path, *, numbers_to_keep: set[int]) -> tuple[int, dict[int, bytes]]:
    """Return the number of frames of a full decode, and the digests of those wanted."""
    count, digests = 0, {}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        try:
            for frame in container.decode(stream):
                if count in numbers_to_keep:
                    digests[count] = digest(planes_of(frame, plane_layout(frame.format.name), grey=False))
                count += 1
        except av.FFmpegError:
            pass
    return count, digests


def requests(count: int, *, rounds: int, address: int) -> list[list[int]]:
    """Return requests of every kind: scattered, strided, reversed, repeated, the last and the first."""
    rng = rng_for(7, stage=Stage.CLIP, epoch=0, position=address)
    index_lists = []
    for _ in range(rounds):
        start = int(rng.integers(0, count))
        strided = list(range(start, count, 2))[:16]
        scattered = rng.integers(0, count, 4).tolist()
        index_lists += [strided, [count - 1, *scattered, scattered[0], 0, *strided[:3][::-1]]]
    return index_lists


def faults(path: Path, count: int, index_lists: list[list[int]], *, with_metadata: bool) -> list[str]:
    """Return every difference between the source and a full decode."""
    decoded, expected = full_decode(path, numbers_to_keep={number for numbers in index_lists for number in numbers})
    metadata = probe(path)
    problems = (
        [] if decoded == metadata.times.count == count else [f"{count}, {decoded}, {metadata.times.count} frames"]
    )
    with open_video(path, channels=metadata.channels, metadata=metadata if with_metadata else None) as source:
        for numbers in index_lists:
            frames = source.planes(numbers).frames
            problems += [
                f"frame {n}" for n, planes in zip(numbers, frames, strict=True) if digest(planes) != expected[n]
            ]
    return problems


def names(rows: list[dict[str, str]]) -> list[str]:
    return [row["path"] for row in rows]


@pytest.mark.parametrize("row", FAST, ids=names(FAST))
def test_frames_equal_a_full_decode(data, row):
    count = int(row["frames_decoded"])
    # One sweep; the slow test asks piece by piece.
    at_once = [n for numbers in requests(count, rounds=1, address=len(row["path"])) for n in numbers]
    assert faults(data / row["path"], count, [at_once], with_metadata=True) == []


@pytest.mark.slow
@pytest.mark.parametrize("row", FAST + SLOW, ids=names(FAST + SLOW))
def test_frames_equal_a_full_decode_often(data, row):
    count = int(row["frames_decoded"])
    rounds = 2 if row in SLOW else 10
    index_lists = requests(count, rounds=rounds, address=1) + [
        [number] for number in range(0, count, max(count // 10, 1))
    ]
    for with_metadata in (True, False):
        if with_metadata or not row["error"]:
            assert faults(data / row["path"], count, index_lists, with_metadata=with_metadata) == []


def test_a_wrong_frame_is_found(data, monkeypatch):
    path = data / "grid" / "bbaf2n.mpg"
    index_lists = requests(75, rounds=1, address=0)
    monkeypatch.setitem(globals(), "digest", digest_of_the_first_row)
    assert faults(path, 75, index_lists, with_metadata=True) == []
    assert faults(path, 76, index_lists, with_metadata=True) == ["76, 75, 75 frames"]
    honest = full_decode

    def shifted(path, *, numbers_to_keep):
        count, digests = honest(path, numbers_to_keep=numbers_to_keep)
        return count, digests | {0: b"another"}

    monkeypatch.setitem(globals(), "full_decode", shifted)
    assert faults(path, 75, index_lists, with_metadata=True) == ["frame 0"]


def digest_of_the_first_row(planes) -> bytes:
    return planes[0][0].tobytes()


@pytest.mark.parametrize("row", FAST[::4], ids=names(FAST[::4]))
def test_metadata_agree_with_the_record(data, row):
    metadata = probe(data / row["path"], verify="packets")
    height, width = stored_size(metadata.height, metadata.width, aspect=metadata.aspect, rotation=metadata.rotation)
    assert (width, height) == (int(row["width"]), int(row["height"]))
    assert (metadata.codec, metadata.pixel_format) == (row["codec"], row["pix_fmt"])
    assert metadata.rotation == int(row["rotation"]) % 360
    assert metadata.header_frames == int(row["frames_in_header"])
    assert metadata.error is None or row["error"]
    if not row["error"]:
        assert metadata.times.count == int(row["frames_decoded"])
        assert len(metadata.key_frames) == int(row["key_frames"])
        assert abs(metadata.times.first_seconds - float(row["first_pts_s"])) < 1e-3


def test_a_file_that_breaks_keeps_the_frames_before(data):
    path = data / "formats" / "decord" / "corrupted.mp4"
    metadata = probe(path)
    assert metadata.times.count == 28
    assert metadata.error is not None
    assert metadata.error.startswith("breaks after 28 of 50 frames")
