"""Sample tables of MP4 and MOV that promise more than a file can hold, wherever FFmpeg would find them."""

import struct
import zlib

import av
import numpy as np
import pytest

import cinefeed as cf
from cinefeed.core.errors import SourceError
from cinefeed.testing.videos import numbered_frames, write_video
from cinefeed.video.ffmpeg.boxes import check_sample_tables
from cinefeed.video.ffmpeg.probe import probe_encoded
from cinefeed.video.limits import DEFAULT_LIMITS, ReadLimits
from cinefeed.video.read_options import ReadOptions

COUNT = 50_000_000
PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf")


def box(kind, body):
    return struct.pack(">I4s", 8 + len(body), kind) + body


def rebuilt(movie, change):
    """Return a movie with `change(kind, body)` in place of each box for which it is not None."""
    made, at = b"", 0
    while at + 8 <= len(movie):
        size, kind = struct.unpack_from(">I4s", movie, at)
        body = movie[at + 8 : at + size]
        changed = change(kind, body)
        if changed is None:
            changed = box(kind, rebuilt(body, change) if kind in PARENTS else body)
        made += changed
        at += size
    return made


def all_alike(count=COUNT):
    return struct.pack(">III", 0, 1, count)


def sizes(kind, body):
    return box(b"stsz", all_alike()) if kind == b"stsz" else None


@pytest.fixture
def movie(tmp_path):
    return write_video(tmp_path / "whole.mov", numbered_frames(12)).read_bytes()


@pytest.fixture
def fragments(tmp_path):
    options = {"movflags": "frag_keyframe+empty_moov"}
    return write_video(tmp_path / "whole.mp4", numbered_frames(12), gop=4, container_options=options).read_bytes()


def moov_in_free(movie):
    return rebuilt(rebuilt(movie, sizes), lambda kind, body: box(b"free", body) if kind == b"moov" else None)


def compressed_moov(movie):
    """A compressed header (QuickTime's cmov) that unpacks to 3 GB."""

    def change(kind, body):
        if kind != b"moov":
            return None
        packed = struct.pack(">I", 3 * 2**30) + zlib.compress(box(b"moov", body))
        return box(b"moov", box(b"cmov", box(b"dcom", b"zlib") + box(b"cmvd", packed)))

    return rebuilt(movie, change)


def wide_sizes(movie):
    """Every size as 64 bits."""

    def change(kind, body):
        if kind == b"stsz":
            return struct.pack(">I4sQ", 1, kind, 16 + 12) + all_alike()
        if kind in PARENTS:
            inner = rebuilt(body, change)
            return struct.pack(">I4sQ", 1, kind, 16 + len(inner)) + inner
        return None

    return rebuilt(movie, change)


def in_user_data(movie):
    """A second table, in a box that FFmpeg looks into as well."""
    return rebuilt(
        movie, lambda kind, body: box(kind, body + box(b"udta", box(b"stsz", all_alike()))) if kind == b"trak" else None
    )


def in_sample_description(movie):
    def change(kind, body):
        if kind != b"stsd":
            return None
        size = struct.unpack_from(">I", body, 8)[0]
        entry = body[8 : 8 + size] + box(b"stsz", all_alike())
        return box(kind, body[:8] + struct.pack(">I", len(entry)) + entry[4:] + body[8 + size :])

    return rebuilt(movie, change)


def many_edits(movie):
    edits = struct.pack(">II", 0, 10**6) + struct.pack(">IiI", 1000, 0, 0x10000) * 10**6
    return rebuilt(movie, lambda kind, body: box(kind, edits) if kind == b"elst" else None)


MADE = {
    "sizes": lambda movie: rebuilt(movie, sizes),
    "in a free box": moov_in_free,
    "compressed": compressed_moov,
    "64-bit sizes": wide_sizes,
    "user data": in_user_data,
    "sample description": in_sample_description,
    "edits": many_edits,
}


@pytest.mark.parametrize("kind", MADE)
def test_more_samples_than_bytes(tmp_path, movie, kind):
    if kind == "edits" and b"elst" not in movie:
        movie = write_video(tmp_path / "b.mov", numbered_frames(12), b_frames=2).read_bytes()
        assert b"elst" in movie
    path = tmp_path / "bomb.mov"
    path.write_bytes(MADE[kind](movie))
    with pytest.raises(SourceError, match=r"bomb\.mov: .*(which is impossible|beyond max_)"):
        probe_encoded(path)


@pytest.mark.parametrize("fragment", [0, 300])
def test_more_samples_than_bytes_in_a_video_within_dicom(tmp_path, movie, fragment):
    pytest.importorskip("pydicom")
    from made_dicom import write_dicom

    def within_dicom(data):
        data += bytes(len(data) % 2)
        pieces = [data[at : at + fragment] for at in range(0, len(data), fragment)] if fragment else [data]
        pixels, colours = np.zeros((12, 64, 64, 3), np.uint8), {"PhotometricInterpretation": "YBR_PARTIAL_420"}
        syntax = "1.2.840.10008.1.2.4.102"
        return write_dicom(tmp_path / "a.dcm", pixels, syntax=syntax, encoded=[pieces], table=False, **colours)

    with pytest.raises(SourceError, match=r"a\.dcm: .*which is impossible"):
        cf.probe(within_dicom(rebuilt(movie, sizes)))
    assert cf.probe(within_dicom(movie)).times.count == 12


def test_fragments_count_together(tmp_path, fragments):
    entries = struct.pack(">II", 0, COUNT // 2)
    path = tmp_path / "bomb.mp4"
    path.write_bytes(rebuilt(fragments, lambda kind, body: box(kind, entries) if kind == b"trun" else None))
    with pytest.raises(SourceError, match="which is impossible"):
        probe_encoded(path)
    path.write_bytes(fragments)
    check_sample_tables(path, ReadLimits(max_frames=12))
    with pytest.raises(SourceError, match="promises 12 frames"):
        check_sample_tables(path, ReadLimits(max_frames=11))


@pytest.mark.parametrize("kind", ["sizes", "64-bit sizes", "in a free box"])
def test_the_changed_tables_are_those_that_ffmpeg_reads(tmp_path, movie, kind, monkeypatch):
    """With a count of 12 in place of 50 million, all alike, the file opens."""
    monkeypatch.setitem(globals(), "all_alike", lambda: struct.pack(">III", 0, 1, 12))
    path = tmp_path / "small.mov"
    path.write_bytes(MADE[kind](movie))
    check_sample_tables(path, DEFAULT_LIMITS)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 12


def test_pcm_sound_is_accepted(tmp_path):
    path = tmp_path / "sound.mov"
    with av.open(str(path), "w") as container:
        video = container.add_stream("h264", rate=25)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=48000, layout="mono")
        for pixels in numbered_frames(12):
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 20_000), np.int16), format="s16", layout="mono")
        sound.sample_rate = 48000
        container.mux(audio.encode(sound))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    assert probe_encoded(path, reading=ReadOptions(limits=ReadLimits(max_frames=1000))).times.count == 12
    data = rebuilt(
        path.read_bytes(), lambda kind, body: box(kind, body[:8] + b"vide" + body[12:]) if kind == b"hdlr" else None
    )
    path.write_bytes(data)
    with pytest.raises(SourceError, match="promises 20,000 frames"):
        check_sample_tables(path, ReadLimits(max_frames=1000))


@pytest.mark.parametrize("data", [b"", b"\0", b"RIFF" + bytes(40), bytes(1000), struct.pack(">I4s", 1, b"moov")])
def test_other_files_are_left_to_ffmpeg(tmp_path, data):
    path = tmp_path / "other"
    path.write_bytes(data)
    check_sample_tables(path, DEFAULT_LIMITS)
    check_sample_tables(tmp_path / "absent", DEFAULT_LIMITS)
