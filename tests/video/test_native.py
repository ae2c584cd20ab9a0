"""The compiled way to read encoded video: where it is taken, and that it steps aside where anything is not as known."""

import ctypes
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import av
import numpy as np
import pytest

from cinefeed import open_video, probe
from cinefeed.core.errors import DecodeError
from cinefeed.testing import numbered_frames, read_number, write_video
from cinefeed.video.ffmpeg import abi as structures
from cinefeed.video.ffmpeg import decoder
from cinefeed.video.ffmpeg.decoder import decoder_choice
from cinefeed.video.ffmpeg.source import EncodedSource
from cinefeed.video.metadata import VideoMetadata

COUNT = 40


@pytest.fixture
def unasked():
    """Forget what is known of the library, before and after."""
    decoder_choice.cache_clear()
    yield
    decoder_choice.cache_clear()


def video(folder, name="some.mp4", **settings):
    return write_video(folder / name, numbered_frames(COUNT, height=96, width=128), **settings)


def numbers_read(source, numbers):
    return [read_number(frame[0]) for frame in source.planes(numbers).frames]


def test_this_library_is_known():
    """Without this every other test would pass by PyAV alone."""
    assert decoder_choice().name == "compiled", decoder_choice().reason


@pytest.mark.parametrize(
    ("name", "settings", "compiled"),
    [
        ("h264.mp4", {"b_frames": 2}, True),
        ("mpeg4.mov", {"codec": "mpeg4"}, True),
        ("vp9.webm", {"codec": "vp9"}, True),
        ("h264.mkv", {}, False),  # Matroska can keep decoding times alone
        ("mpeg4.avi", {"codec": "mpeg4"}, False),  # AVI keeps none that tell when a frame is shown
        ("deep.mp4", {"pixel_format": "yuv420p10le", "codec": "hevc"}, True),
    ],
)
def test_containers_that_state_their_times_are_read_by_compiled_code(tmp_path, name, settings, compiled):
    path = video(tmp_path, name, **settings)
    with open_video(path) as source:
        assert (source.decoder == "compiled") == compiled
        planes = source.planes([7, 8, 30]).frames
        assert (source.decoder == "compiled") == compiled  # it found them all
    with av.open(str(path)) as container:
        frames = [frame for number, frame in enumerate(container.decode(video=0)) if number in (7, 8, 30)]
    for frame, parts in zip(frames, planes, strict=True):
        for plane, part in zip(frame.planes, parts, strict=True):
            rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
            assert (rows[:, : part.shape[1] * part.itemsize] == part.view(np.uint8)).all()


@pytest.mark.parametrize("change", ["version", "pair", "place", "function", "library", "module"])
def test_an_unknown_library_is_read_through_pyav(tmp_path, monkeypatch, caplog, unasked, change):
    path = video(tmp_path)
    np.save(tmp_path / "frames.npy", np.zeros((5, 8, 8), np.uint8))
    metadata, tested = probe(path), structures.version()
    if change == "version":
        monkeypatch.setitem(av.library_versions, "libavcodec", (99, 0, 0))
        reason = r"tested with libavcodec 62, 63, this is 99"
    elif change == "pair":
        monkeypatch.setitem(av.library_versions, "libavformat", (99, 0, 0))
        reason = r"this is \d+ \(libavformat 99,"
    elif change == "place":
        monkeypatch.setitem(structures.TESTED_VERSIONS, tested, structures.TESTED_VERSIONS[tested]._replace(flags=280))
        reason = f"an AVFrame's flags and colours is not at the offset of libavcodec {tested.libavcodec}"
    elif change == "function":
        monkeypatch.setattr(decoder, "NAMES", [*decoder.NAMES, "av_no_such_function"])
        reason = "cannot be called by name: .*av_no_such_function"
    elif change == "library":
        monkeypatch.setattr(av._core, "__file__", str(tmp_path / "absent.so"))
        reason = r"cannot be called by name: .*absent\.so"
    else:
        monkeypatch.delattr(av, "_core")
        monkeypatch.setitem(sys.modules, "av._core", None)
        reason = r"cannot be called by name: import of av\._core halted"
    for _ in range(2):
        with EncodedSource(path, metadata=metadata) as source:
            assert source.decoder == "PyAV"
            assert numbers_read(source, [33, 2]) == [33, 2]
    assert decoder_choice().name == "PyAV"
    assert re.search(reason, decoder_choice().reason)
    (line,) = caplog.messages
    assert line.startswith("encoded video is read by PyAV") and decoder_choice().reason in line
    with open_video(tmp_path / "frames.npy") as source:
        assert len(source) == 5


PLACES = "STREAM_COUNT STREAMS PARAMETERS STAMP SIZE PACKET_FLAGS LINES WIDTH HEIGHT FORMAT_ID FRAME_STAMP".split()


@pytest.mark.parametrize("by", [-8, -4, 4, 8])
@pytest.mark.parametrize("name", [*PLACES, *structures.Offsets._fields])
def test_a_place_that_has_moved_is_seen(monkeypatch, name, by):
    places = structures.TESTED_VERSIONS[structures.version()]
    if name in places._fields:
        places = places._replace(**{name: getattr(places, name) + by})
    else:
        monkeypatch.setattr(structures, name, getattr(structures, name) + by)
    assert structures.what_differs(structures.library(), places) is not None


def test_a_block_far_away_is_recognised():
    """A small block that another thread allocated is reused by this one: once in a while PyAV read every video."""
    block = ctypes.create_string_buffer(16)
    address = ctypes.addressof(block) // 8 * 8
    assert structures._is_near(address, address + 64)
    assert structures._is_near(address, 1 << 46) == Path("/proc/self/mem").exists()
    for value in (0, 1 << 12, address + 1, (3 << 32) + 8, (1 << 62) + 8, (1 << 63) + 8):
        assert not structures._is_near(value, address)


def test_without_pyavs_private_module_arrays_open_and_pyav_reads(tmp_path):
    """In a new process, for here it is loaded: `import cinefeed` must not need it."""
    path = video(tmp_path)
    np.save(tmp_path / "frames.npy", np.zeros((5, 8, 8), np.uint8))
    script = """
        import sys, av
        del av._core
        sys.modules["av._core"] = None
        import cinefeed as cf
        with cf.open_video(sys.argv[1]) as frames, cf.open_video(sys.argv[2]) as source:
            print(len(frames), source.read([3]).shape, source.decoder)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "frames.npy"), str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[0] == "5 (1, 96, 128, 3) PyAV"
    assert done.stderr.count("encoded video is read by PyAV") == 1


def test_what_it_cannot_find_pyav_finds(tmp_path):
    """Stamps that are none of the file's: compiled code gives up, and the frames come all the same, counted."""
    path = video(tmp_path, b_frames=2)
    metadata = probe(path)
    assert metadata.ticks is not None
    shifted = VideoMetadata(**{**vars(metadata), "ticks": metadata.ticks._replace(first=7)})
    with EncodedSource(path, metadata=shifted) as source:
        assert source.decoder == "compiled"
        assert numbers_read(source, [9, 31]) == [9, 31]
        assert source.decoder == "PyAV"


def test_a_file_of_another_size_by_now_is_refused(tmp_path):
    metadata = probe(video(tmp_path))
    larger = write_video(tmp_path / "other.mp4", numbered_frames(COUNT, height=192, width=256))
    with EncodedSource(larger, metadata=metadata) as source:
        with pytest.raises(DecodeError, match=r"other\.mp4: frame 5 is 256 x 192, its metadata gives 128 x 96"):
            source.planes([5])
        assert source.decoder == "PyAV"


def test_a_file_that_is_gone_or_no_video_has_pyavs_error(tmp_path):
    path = video(tmp_path)
    metadata = probe(path)
    path.write_bytes(b"nothing that a video begins with" * 40)
    with pytest.raises(Exception, match="FFmpeg cannot open this file"):
        EncodedSource(path, metadata=metadata)
    path.unlink()
    with pytest.raises(Exception, match="there is no such file"):
        EncodedSource(path, metadata=metadata)


def test_names_that_are_not_ascii(tmp_path):
    path = video(tmp_path, "herzschläge 心臓 %d #1.mp4")
    with open_video(path) as source:
        assert numbers_read(source, [3]) == [3]
        assert source.decoder == "compiled"


def test_repeats_and_any_order(tmp_path):
    with open_video(video(tmp_path, gop=10)) as source:
        indices = [30, 2, 2, 39, 0, 30]
        assert numbers_read(source, indices) == indices
        assert len(source.planes([]).frames) == 0


@pytest.mark.parametrize(
    ("codec", "pixel_format"), [("png", "rgb24"), ("png", "rgba"), ("png", "rgb48be"), ("qtrle", "rgb24")]
)
def test_interleaved_pixels_are_those_of_pyav(tmp_path, codec, pixel_format):
    """Pixels of formats that OpenCV reorders; big-endian numbers go through swscale and PyAV."""
    path = write_video(
        tmp_path / "rgb.mov", numbered_frames(12, height=45, width=63), codec=codec, pixel_format=pixel_format
    )
    numbers = [7, 3, 3, 11]
    with open_video(path) as source:
        assert source.decoder == ("PyAV" if pixel_format == "rgb48be" else "compiled")
        fast = source.read(numbers)
        assert source.decoder == ("PyAV" if pixel_format == "rgb48be" else "compiled")
    with av.open(str(path)) as container:
        form = "rgb48le" if pixel_format == "rgb48be" else "rgb24"
        expected = [frame.to_ndarray(format=form) for frame in container.decode(video=0)]
    assert (fast == np.stack([expected[number] for number in numbers])).all()
