"""Each sentence of SECURITY.md, by the tests that hold it.

No file but the one asked for is read:
    test_what_refers_to_other_files_is_refused, test_a_play_list_in_the_place_of_a_scanned_video,
    test_a_movie_of_external_data, tests/sources/test_hdf5.py (virtual, external and linked data sets)
"""

import struct
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

import cinefeed as cf
from cinefeed.errors import SourceError
from cinefeed.sources.encoded import EncodedSource
from cinefeed.testing.videos import numbered_frames, write_video


@pytest.fixture
def neighbour(tmp_path: Path) -> Path:
    """The video of another patient, beside the hostile file."""
    return write_video(tmp_path / "neighbour.mp4", numbered_frames(12, first=500))


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile neighbour.mp4\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1.0,\nneighbour.mp4\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-on-'
    'demand:2011" type="static" mediaPresentationDuration="PT1S"><Period><AdaptationSet contentType="video">'
    '<Representation id="1" bandwidth="1"><BaseURL>neighbour.mp4</BaseURL></Representation></AdaptationSet></Period>'
    "</MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "rtsp": "rtsptext\nrtsp://127.0.0.1/x\n",
    "imf": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"/>',
    "vobsub": "# VobSub index file, v7 (do not modify this line!)\nsize: 64x64\nid: en, index: 0\n"
    "timestamp: 00:00:00:000, filepos: 000000000\n",
}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts", ".gif", ".m3u8", ""])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_what_refers_to_other_files_is_refused(tmp_path, neighbour, kind, suffix):
    path = tmp_path / f"patient_b{suffix}"
    path.write_text(PLAYLISTS[kind])
    (tmp_path / "patient_b.sub").write_bytes(neighbour.read_bytes())
    with pytest.raises(SourceError, match="refused") as refused:
        cf.open_source(path)
    assert str(path) in str(refused.value)
    with pytest.raises(SourceError, match="refused"):
        cf.probe(path)


def test_play_lists_would_be_opened_without_the_list_of_demuxers(tmp_path, neighbour):
    for kind in ("concat", "hls"):
        path = tmp_path / f"{kind}.mp4"
        path.write_text(PLAYLISTS[kind])
        options = {"protocol_whitelist": "file", "safe": "0"} if kind == "concat" else {"protocol_whitelist": "file"}
        if kind == "hls":
            options |= {"allowed_extensions": "ALL", "extension_picky": "0"}
        with av.open(str(path), format=kind, container_options=options) as container:
            assert sum(1 for _ in container.decode(video=0)) == 12


def test_a_pattern_of_image_names_is_refused(tmp_path):
    for number in range(3):
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        frame.save(str(tmp_path / f"frame{number}.png"))
    with pytest.raises(SourceError, match="no such file"):
        cf.open_source(tmp_path / "frame%d.png")


def test_a_play_list_in_the_place_of_a_scanned_video(tmp_path, neighbour):
    path = write_video(tmp_path / "patient_b.mp4", numbered_frames(12))
    facts = cf.probe(path)
    with EncodedSource(path, facts=facts) as video:
        assert video._native is not None, "the compiled decoder reads it"
    path.write_text(PLAYLISTS["concat"])
    with pytest.raises(SourceError, match="refused"):
        EncodedSource(path, facts=facts)
    # ... whatever the manifest says that it is
    for container in ("concat", "hls"):
        with pytest.raises(SourceError, match="refused"):
            EncodedSource(path, facts=replace(facts, container=container))


def with_external_data(movie: bytes, target: Path) -> bytes:
    """Return a movie of which the frames lie in another file, by a Macintosh alias (QuickTime's data references)."""
    name = str(target).encode()
    name += bytes(len(name) % 2)
    volume, file = bytes([3]) + b"vol".ljust(27, b"\0"), bytes([5]) + b"x.mov".ljust(63, b"\0")
    record = bytes(10) + volume + bytes(12) + file + bytes(16) + struct.pack(">HH", 1, 1) + bytes(16)
    record += struct.pack(">HH", 2, len(name)) + name + struct.pack(">HH", 0xFFFF, 0)
    entry = struct.pack(">I4sI", 12 + len(record), b"alis", 0) + record
    rebuilt, at = b"", 0
    while at + 8 <= len(movie):
        size, kind = struct.unpack_from(">I4s", movie, at)
        body = movie[at + 8 : at + size]
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
            body = with_external_data(body, target)
        if kind == b"dref":
            body = struct.pack(">II", 0, 1) + entry
        rebuilt += struct.pack(">I4s", 8 + len(body), kind) + body
        at += size
    return rebuilt


def test_a_movie_of_external_data(tmp_path):
    whole = write_video(tmp_path / "whole.mov", numbered_frames(12))
    path = tmp_path / "patient_b.mov"
    path.write_bytes(with_external_data(whole.read_bytes(), whole))
    with av.open(str(path), container_options={"enable_drefs": "1", "use_absolute_path": "1"}) as container:
        assert sum(1 for _ in container.decode(video=0)) == 12, "FFmpeg can be told to follow it"
    with pytest.raises(SourceError, match="no frame can be decoded"):
        cf.open_source(path)
    with pytest.raises(SourceError), EncodedSource(path, facts=cf.probe(whole)) as video:
        video.read([0])
