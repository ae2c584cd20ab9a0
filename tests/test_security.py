"""The statements of SECURITY.md, and the tests of each."""

# Data never contain code:            test_no_pickle_is_read
# A data file gives its own content:  test_what_refers_to_other_files_is_refused, test_a_movie_of_external_data,
#                                     test_a_play_list_in_the_place_of_a_scanned_video, test_a_pattern_of_image_names;
#                                     tests/video/test_hdf5.py: test_a_virtual_set_is_read_where_..., links, external
# The content downloads nothing:      test_no_protocol_but_files; roots: tests/remote/test_remote_feed.py
# Only regular files are opened:      test_a_pipe_..., test_pipes_and_sockets_...
# Each limit, and its error:          tests/video/test_limits.py, tests/video/test_boxes.py;
#                                     here test_the_table_of_limits, test_a_file_beyond_a_limit_...
# Too many samples, reported as not read: test_limits.py: test_a_file_of_too_many_samples_is_named_and_not_listed
# How to set them:                    test_limits_on_the_command_line
# A feed reads what was probed:       test_limits.py: test_a_file_that_was_scanned_with_raised_limits_is_fed
# A frame is that of a full decode, or an error: tests/fuzz/test_frames.py; concealed: tests/video/test_damage.py
# Packets: damage that is not searched for, no more frames: test_damage.py: test_packets_do_not_tell_of_damage;
#                                     test_frames.py: test_packets_without_a_frame, and each of its mutated files
# Valid changed data are not found:   test_damage.py: test_changed_data_that_a_decoder_accepts_are_not_found
# Warnings of OpenCV:                 test_opencv_prints_nothing_during_a_scan
# What is trusted, risks of decoders, how to report: test_what_stands_in_the_page (nothing to run)

import logging
import os
import pickle
import resource
import signal
import socket
import struct
import warnings
from dataclasses import fields, replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

import cinefeed as cf
from cinefeed.cli import main
from cinefeed.core.errors import CinefeedError, DiskFullError, SourceError, TableError
from cinefeed.data.manifest.quiet import decoders_quiet
from cinefeed.feed.disk_errors import disk_error
from cinefeed.testing.videos import numbered_frames, write_video
from cinefeed.video.ffmpeg.compiled_loops import TEXTS
from cinefeed.video.ffmpeg.containers import DEMUXERS
from cinefeed.video.ffmpeg.source import EncodedSource
from cinefeed.video.limits import ReadLimits

PAGE = Path(__file__).parents[1] / "SECURITY.md"


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
        cf.open_video(path)
    assert str(path) in str(refused.value)
    with pytest.raises(SourceError, match="refused"):
        cf.probe(path)


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_what_refers_to_other_files_is_refused_within_dicom(tmp_path, neighbour, kind, monkeypatch):
    uid = pytest.importorskip("pydicom").uid
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate

    monkeypatch.chdir(tmp_path)  # names in it would be found
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.MPEG4HP41
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = uid.VideoEndoscopicImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = "1.2.3"
    ds.Rows = ds.Columns = 64
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 3, "YBR_PARTIAL_420"
    ds.BitsAllocated = ds.BitsStored = 8
    text = PLAYLISTS[kind].encode()
    ds.PixelData = encapsulate([text + b"\n" * (len(text) % 2)])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.save_as(tmp_path / "patient_b.dcm", enforce_file_format=True)
    with pytest.raises(SourceError, match=r"patient_b\.dcm: holds an encoded video that FFmpeg cannot open"):
        cf.open_video(tmp_path / "patient_b.dcm")


def test_play_lists_would_be_opened_without_the_list_of_demuxers(tmp_path, neighbour):
    for kind in ("concat", "hls"):
        path = tmp_path / f"{kind}.mp4"
        path.write_text(PLAYLISTS[kind])
        options = {"protocol_whitelist": "file", "safe": "0"} if kind == "concat" else {"protocol_whitelist": "file"}
        if kind == "hls":
            options |= {"allowed_extensions": "ALL", "extension_picky": "0"}
        with av.open(str(path), format=kind, container_options=options) as container:
            assert sum(1 for _ in container.decode(video=0)) == 12


def test_a_pattern_of_image_names(tmp_path):
    for number in range(3):
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        frame.save(str(tmp_path / f"frame{number}.png"))
    with pytest.raises(SourceError, match="no such file"):
        cf.open_video(tmp_path / "frame%d.png")


def test_a_play_list_in_the_place_of_a_scanned_video(tmp_path, neighbour):
    path = write_video(tmp_path / "patient_b.mp4", numbered_frames(12))
    metadata = cf.probe(path)
    with EncodedSource(path, metadata=metadata) as video:
        assert video.decoder == "compiled"
    path.write_text(PLAYLISTS["concat"])
    with pytest.raises(SourceError, match="refused"):
        EncodedSource(path, metadata=metadata)
    # ... whatever the manifest says that it is
    for container in ("concat", "hls"):
        with pytest.raises(SourceError, match="refused"):
            EncodedSource(path, metadata=replace(metadata, container=container))


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
        cf.open_video(path)
    with pytest.raises(SourceError), EncodedSource(path, metadata=cf.probe(whole)) as video:
        video.read([0])


def test_no_protocol_but_files(tmp_path):
    path = tmp_path / "patient_b.mp4"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1.0,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(SourceError, match="refused"):
        cf.open_video(path)
    assert TEXTS.startswith(b"protocol_whitelist\0file\0format_whitelist\0" + ",".join(DEMUXERS).encode() + b"\0")


class Trap:
    """An object that leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_pickle_is_read(tmp_path):
    trap = tmp_path / "sprung"
    np.save(tmp_path / "a.npy", np.array([[[Trap(trap)]]], object), allow_pickle=True)
    np.savez(tmp_path / "b.npz", x=np.array([[[Trap(trap)]]], object))
    (tmp_path / "c.npy").write_bytes(pickle.dumps(Trap(trap)))
    for name in ("a.npy", "b.npz", "c.npy"):
        with pytest.raises(SourceError, match=name):
            cf.open_video(tmp_path / name)
    with pytest.raises(ValueError):
        cf.Manifest.from_table(tmp_path / "c.npy")
    assert not trap.exists()
    np.load(tmp_path / "a.npy", allow_pickle=True)
    assert trap.exists(), "the trap works"


@pytest.fixture
def alarm():
    """Interrupts what waits for a pipe, so that the test fails and does not hang."""

    def ring(number, frame):
        raise TimeoutError("it waited for a pipe")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("suffix", ".mp4 .avi .npy .npz .h5 .nii .nii.gz .dcm .tif .png .unknown".split())
def test_a_pipe_is_no_video(tmp_path, alarm, suffix):
    path = tmp_path / f"pipe{suffix}"
    os.mkfifo(path)
    metadata = cf.probe(write_video(tmp_path / "whole.mp4", numbered_frames(12)))
    for attempt in (cf.probe, cf.open_video, lambda path: cf.open_video(path, metadata=metadata)):
        with pytest.raises(SourceError, match="is a named pipe") as refused:
            attempt(path)
        assert str(path) in str(refused.value)
    assert disk_error(refused.value, path) is None, "nor is it read to see whether the disk is broken"


def test_a_device_is_no_video(tmp_path, alarm):
    path = tmp_path / "zero.mp4"
    path.symlink_to("/dev/zero")
    with pytest.raises(SourceError, match="is a device"):
        cf.open_video(path)


def test_a_pipe_is_no_frame_of_a_folder(tmp_path, alarm):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((20, 30), number, np.uint8))
    metadata = cf.probe(tmp_path)
    (tmp_path / "1.png").unlink()
    os.mkfifo(tmp_path / "1.png")
    with cf.open_video(tmp_path, metadata=metadata) as source, pytest.raises(SourceError, match="is a named pipe"):
        source.read([1])
    with pytest.raises(SourceError, match="is a named pipe"):
        cf.probe(tmp_path)
    with pytest.raises(SourceError, match="is a named pipe"):
        cf.probe(tmp_path, files=["0.png", "1.png"])


def test_a_pipe_is_no_file_of_a_series(tmp_path, alarm):
    pytest.importorskip("pydicom")
    from cinefeed.video.dicom.pixels import DicomFile

    os.mkfifo(tmp_path / "0.dcm")
    with pytest.raises(SourceError, match="is a named pipe"):
        cf.probe(tmp_path, files=["0.dcm"])
    with pytest.raises(SourceError, match="is a named pipe"):
        DicomFile(tmp_path / "0.dcm")


def test_a_pipe_is_no_mask(tmp_path, alarm, manifest):
    os.mkfifo(manifest.root / "mask.npy")
    table = manifest.table.append_column("mask_path", [["mask.npy"] * len(manifest)])
    masked = cf.Manifest.from_table(table, root=manifest.root)
    frame = cf.Frame(height=20, width=24, channels=1)
    feed = cf.Feed(
        masked,
        target="age",
        inputs=cf.Inputs(mask="mask_path"),
        clip=cf.Clip(frames=4),
        frame=frame,
        batch_size=4,
        workers=1,
    )
    with pytest.raises(CinefeedError, match="is a named pipe"):
        feed.batch(0, epoch=0)


def test_a_pipe_is_no_table(tmp_path, alarm, neighbour):
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(TableError, match=r"labels\.csv is a named pipe"):
        cf.Manifest.scan(tmp_path, labels=tmp_path / "labels.csv", progress=False)
    with pytest.raises(TableError, match="a named pipe"):
        cf.Manifest.read(tmp_path / "labels.csv")


@pytest.mark.parametrize("private", [False, True])
def test_pipes_and_sockets_in_a_folder_are_named_and_left_out(tmp_path, alarm, neighbour, private):
    os.mkfifo(tmp_path / "secret.mp4")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.npy"))
        manifest = cf.Manifest.scan(tmp_path, progress=False, private=private)
    assert manifest.column("path").to_pylist() == ["neighbour.mp4"]
    names = [] if private else ["secret.mp4", "socket.npy"]
    assert manifest.not_read == {"pipe, device or socket": {"files": 2, "first": names}}


def test_the_table_of_limits():
    text = PAGE.read_text()
    defaults = {
        "max_frame_bytes": (2**29, "512 MiB"),
        "max_unpacked_bytes": (2**29, "512 MiB"),
        "max_frames": (10_000_000, "10 million"),
        "max_samples_per_file": (1_000_000, "1 million"),
        "max_file_seconds": (3600, "one hour"),
    }
    assert [field.name for field in fields(ReadLimits)] == list(defaults)
    for name, (value, words) in defaults.items():
        assert getattr(ReadLimits(), name) == value
        assert f"| `{name}` | {words} |" in text


def test_what_stands_in_the_page():
    text = PAGE.read_text()
    for title in (
        "What is trusted",
        "What is not trusted",
        "What is limited",
        "What damage",
        "Remaining risks",
        "How to report",
    ):
        assert f"## {title}" in text
    assert "private security advisory on the repository" in text and "@" not in text


def test_a_file_beyond_a_limit_has_the_reason_in_its_row(tmp_path, neighbour):
    manifest = cf.Manifest.scan(tmp_path, progress=False, reading=cf.ReadOptions(limits=ReadLimits(max_frames=3)))
    assert manifest.column("num_frames").to_pylist() == [0]
    assert "beyond max_frames=3" in manifest.column("error")[0].as_py()


def test_limits_on_the_command_line(tmp_path, neighbour, capsys):
    out = tmp_path / "m.parquet"
    for field in fields(ReadLimits):
        option = f"--{field.name.replace('_', '-')}"
        value = "1e-6" if field.name == "max_file_seconds" else "3"
        assert main(["scan", str(tmp_path), "--out", str(out), option, value]) == 0, capsys.readouterr()
        error = cf.Manifest.read(out).column("error")[0].as_py()
        assert (
            error is None
            if field.name in ("max_unpacked_bytes", "max_samples_per_file")
            else f"scan {option})" in error
        )
        out.unlink()


def test_a_journal_that_cannot_be_written_to_its_end_is_named(tmp_path):
    for number in range(20):
        np.save(tmp_path / f"{number:02}.npy", np.zeros((4, 20, 30), np.uint8))
    expected = cf.Manifest.scan(tmp_path, progress=False, workers=1).table
    out = tmp_path / "m.parquet"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # as a disk that is full after 1000 bytes
    try:
        with pytest.raises(DiskFullError, match=r"m\.parquet\.partial\.jsonl cannot be written: a limit on disk usage"):
            cf.Manifest.scan(tmp_path, out=out, progress=False, workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert out.with_name("m.parquet.partial.jsonl").stat().st_size == 1000, "the last line is torn"
    assert cf.Manifest.scan(tmp_path, out=out, progress=False, workers=1).table.equals(expected)


def test_a_journal_that_is_a_device_is_not_read(tmp_path, neighbour):
    (tmp_path / "m.parquet.partial.jsonl").symlink_to("/dev/zero")
    with pytest.raises(TableError, match="is a device"):
        cf.Manifest.scan(tmp_path, out=tmp_path / "m.parquet", progress=False)


def test_warnings_of_decoders_are_counted_and_others_shown(caplog):
    pydicom = pytest.importorskip("pydicom")
    with pytest.warns(UserWarning, match="mine"), decoders_quiet() as counts, caplog.at_level(logging.WARNING):
        for number in range(5):
            warnings.warn_explicit(f"odd {number}", UserWarning, pydicom.__file__, number, "pydicom.pixels")
        warnings.warn("mine", UserWarning, stacklevel=1)
    assert counts == {"pydicom": 5}
    assert "5 of pydicom" in caplog.text and "odd" not in caplog.text


def test_opencv_prints_nothing_during_a_scan(tmp_path, capfd):
    folder = tmp_path / "videos"
    folder.mkdir()
    frames = [np.full((20, 30, 4), number, np.uint8) for number in range(3)]
    cv2.imwritemulti(str(folder / "a.tif"), frames)
    capfd.readouterr()
    cv2.imread(str(folder / "a.tif"))
    assert "TIFF_Warning" in capfd.readouterr().err, "OpenCV warns of it"
    assert cf.Manifest.scan(folder, progress=False).column("num_frames").to_pylist() == [3]
    assert "TIFF_Warning" not in capfd.readouterr().err
    cv2.imread(str(folder / "a.tif"))
    assert "TIFF_Warning" in capfd.readouterr().err, "and does so again afterwards"
