"""What is a video, and what is said of everything else."""

import wave
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import cinefeed
from cinefeed import open_video, probe
from cinefeed.core.errors import CinefeedError, SettingError, SourceError
from cinefeed.testing import numbered_frames, write_video
from cinefeed.video.kinds import EXTENSIONS, known_suffix


def write_wav(path: Path) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))
    return path


def bad_files(folder: Path) -> dict[Path, str]:
    """Return files that hold no video, and what is said of each."""
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("id,label\n1,2\n" * 50)
    (folder / "folder.mp4").mkdir()
    (folder / "text.npy").write_text("not an array")
    whole = write_video(folder / "whole.mp4", numbered_frames(30))
    (folder / "cut.mp4").write_bytes(whole.read_bytes()[:200])
    return {
        folder / "empty.mp4": "the file is empty",
        folder / "text.mp4": "cannot open this file as video",
        folder / "folder.mp4": "is a folder",
        folder / "absent.mp4": "there is no such file",
        folder / "text.npy": "is not a NumPy file",
        folder / "cut.mp4": "cannot open this file as video|no frame can be decoded|holds no video",
        write_wav(folder / "sound.wav"): "of another kind, such as sound",
    }


def test_bad_files_are_refused_by_name_and_reason(tmp_path):
    for path, reason in bad_files(tmp_path).items():
        for attempt in (probe, lambda path: probe(path, verify="packets"), open_video):
            with pytest.raises(SourceError, match=reason) as caught:
                attempt(path)
            assert path.name in str(caught.value)
            assert isinstance(caught.value, (CinefeedError, ValueError))


def open_handles() -> set[str]:
    handles = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the handle of this listing
            handles.add(str(link.readlink()))
    return handles


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_no_file_is_left_open_after_an_error(tmp_path):
    files = bad_files(tmp_path)
    good = write_video(tmp_path / "good.mp4", numbered_frames(30))
    with open_video(good) as source:
        assert str(good) in open_handles()  # the check can fail
        with pytest.raises(SourceError, match="frame 30 was asked for, the file has frames 0 to 29"):
            source.read([0, 30])
    for path in files:
        with pytest.raises(SourceError):
            open_video(path)
    assert not [handle for handle in open_handles() if str(tmp_path) in handle]


def test_content_decides_and_not_the_name(tmp_path):
    video = write_video(tmp_path / "video.mp4", numbered_frames(3))
    disguised = video.rename(tmp_path / "video.avi")
    assert probe(disguised).container == "mov"
    np.save(tmp_path / "array.npy", np.zeros((3, 4, 4), np.uint8))
    array = (tmp_path / "array.npy").rename(tmp_path / "array.dat")
    assert probe(array).container == "npy"


def test_a_name_cannot_make_ffmpeg_fetch_or_follow(tmp_path):
    odd = write_video(tmp_path / "a:b?c=%d.mp4", numbered_frames(3))
    assert probe(odd).times.count == 3
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(SourceError):
        probe(playlist)


@pytest.mark.parametrize("indices", [[-1], [30], [0, 99]])
def test_an_index_out_of_range_is_named(tmp_path, indices):
    path = write_video(tmp_path / "good.mp4", numbered_frames(30))
    with open_video(path) as source, pytest.raises(SourceError, match=f"frame {indices[-1]} was asked for"):
        source.planes(indices)


@pytest.mark.parametrize("indices", [[0.5], "abc", [[0, 1]], [True]])
def test_indices_are_whole_numbers(tmp_path, indices):
    path = write_video(tmp_path / "good.mp4", numbered_frames(3))
    with open_video(path) as source, pytest.raises(SourceError, match="whole numbers"):
        source.planes(indices)


def test_settings_are_checked(tmp_path):
    with pytest.raises(SettingError, match="channels=4"):
        open_video(tmp_path / "any.mp4", channels=4)
    with pytest.raises(SettingError, match="did you mean 'decode'"):
        probe(tmp_path / "any.mp4", verify="decoded")


def test_suffixes():
    assert {".mp4", ".avi", ".npy", ".gif"} <= EXTENSIONS
    assert known_suffix("a/b.MP4") == ".mp4"
    assert known_suffix("a/b.c.mkv") == ".mkv"
    assert known_suffix("a/.mp4") is None
    assert known_suffix("a/mp4") is None
    assert known_suffix("a.mp4/notes.txt") is None


def test_the_public_names_are_these():
    assert cinefeed.open_video is open_video
    assert cinefeed.probe is probe
