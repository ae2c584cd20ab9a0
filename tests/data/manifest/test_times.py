"""Seconds of tables count from the container's start time: the frames that `ffmpeg -ss` selects."""

import os
import shutil
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cinefeed as cf
from cinefeed.core.errors import TableError
from cinefeed.data.manifest.parquet import NOTES, with_digest
from cinefeed.testing.videos import numbered_frames, read_number, write_video

COUNT = 100


@pytest.fixture
def ffmpeg():
    program = shutil.which("ffmpeg")
    if program is None:
        if "ffmpeg" in os.environ.get("CINEFEED_REQUIRE", ""):
            pytest.fail("there is no ffmpeg program on the PATH")
        pytest.skip("there is no ffmpeg program on the PATH to compare with")
    return program


def selected_by(ffmpeg, path, *, start, seconds):
    """Return the numbers of the frames that `ffmpeg -ss START -t SECONDS` puts out."""
    command = [
        ffmpeg,
        "-v",
        "error",
        "-i",
        str(path),
        "-ss",
        str(start),
        "-t",
        str(seconds),
        "-fps_mode",
        "passthrough",
    ]
    raw = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "gray", "-"], check=True, stdout=subprocess.PIPE)
    return [read_number(each) for each in np.frombuffer(raw.stdout, np.uint8).reshape(-1, 64, 64)]


def fed(manifest, *, clip=None):
    """Return the numbers that the valid frames of the first row's clip show."""
    clip = clip or cf.Clip(frames=60, position="start", short="pad")
    frame = cf.Frame(height=64, width=64, channels=1, fit="none")
    batch = cf.Feed(manifest, target=None, clip=clip, frame=frame, workers=0, batch_size=1).batch(0)
    return [read_number(each[..., 0]) for each in batch.clips[0][batch.valid[0]]]


def window(path, start, end):
    return {"path": [path.name], "start_seconds": [start], "end_seconds": [end]}


LATE = [8330 + 40 * n for n in range(COUNT)]
VARIABLE = [1400 + 40 * n + (n > 50) * 500 for n in range(COUNT)]
DELAY = {"max_delay": "700000"}  # as the program has it: the first stamp of a .ts is 1.4 s
FILES = {
    "ts": ("a.ts", {"container_options": DELAY}),
    "ts with B-frames": ("a.ts", {"container_options": DELAY, "b_frames": 2}),
    "mpg": ("a.mpg", {"codec": "mpeg2video"}),
    "mp4": ("a.mp4", {"b_frames": 2}),
    "mkv that starts late": ("a.mkv", {"stamps": LATE}),
    "mkv of variable rate": ("a.mkv", {"stamps": VARIABLE}),
    "avi": ("a.avi", {"codec": "mpeg4"}),
}


@pytest.mark.parametrize("name", FILES)
def test_a_window_is_what_ffmpeg_selects(tmp_path, ffmpeg, name):
    file, options = FILES[name]
    path = write_video(tmp_path / file, numbered_frames(COUNT), **options)
    expected = selected_by(ffmpeg, path, start=1, seconds=1)
    assert len(expected) >= 12 and expected[0] >= 24
    manifest = cf.Manifest.scan(tmp_path, labels=window(path, 1.0, 2.0), progress=False)
    assert fed(manifest) == expected
    manifest.write(tmp_path / "m.parquet")
    read = cf.Manifest.read(tmp_path / "m.parquet")
    assert fed(read) == expected
    assert fed(read, clip=cf.Clip(frames=30, rate_hz=25, position="start", short="pad"))[0] == expected[0]
    seconds = read.metadata(0).times.seconds()
    assert seconds[0] == pytest.approx(0.0, abs=0.1)


def test_the_sound_may_start_before_the_picture(tmp_path, ffmpeg):
    picture = write_video(tmp_path / "picture.mkv", numbered_frames(COUNT))
    data = tmp_path / "data"
    data.mkdir()
    sound = ["-f", "lavfi", "-i", "sine=duration=5"]
    command = [ffmpeg, "-v", "error", "-itsoffset", "0.52", "-i", picture, *sound, "-c:v", "copy", data / "a.mkv"]
    subprocess.run(list(map(str, command)), check=True)
    manifest = cf.Manifest.scan(data, labels=window(data / "a.mkv", 1.0, 2.0), progress=False)
    expected = selected_by(ffmpeg, data / "a.mkv", start=1, seconds=1)
    assert expected[0] == 12 and fed(manifest) == expected


def test_arrays_count_from_the_first_frame(tmp_path):
    np.save(tmp_path / "a.npy", numbered_frames(COUNT)[..., 0])
    metadata = cf.Manifest.scan(tmp_path, progress=False).metadata(0)
    assert metadata.start_time_seconds == 0.0 and metadata.times.first_seconds == 0.0


def test_a_manifest_without_start_times_is_scanned_anew(tmp_path):
    write_video(tmp_path / "a.ts", numbered_frames(30), container_options=DELAY)
    out = tmp_path / "m.parquet"
    cf.Manifest.scan(tmp_path, out=out, progress=False)
    table = pq.read_table(out)
    pq.write_table(with_digest(table.drop_columns("start_time_seconds"), table.schema.metadata[NOTES]), out)
    start = cf.Manifest.scan(tmp_path, out=out, progress=False).column("start_time_seconds")
    assert start.type == pa.float64() and start[0].as_py() == pytest.approx(1.4, abs=0.1)


def test_a_feed_of_seconds_refuses_a_manifest_without_start_times(tmp_path):
    path = write_video(tmp_path / "a.ts", numbered_frames(60), container_options=DELAY)
    manifest = cf.Manifest.scan(tmp_path, labels=window(path, 1.0, 2.0), progress=False)
    assert fed(manifest)
    out = tmp_path / "m.parquet"
    manifest.write(out)
    table = pq.read_table(out)
    pq.write_table(with_digest(table.drop_columns("start_time_seconds"), table.schema.metadata[NOTES]), out)
    with pytest.raises(
        TableError, match=r"1 of 1 rows .* without start_time_seconds .*\(first: row 0, a.ts\).* scan again"
    ):
        fed(cf.Manifest.read(out, root=tmp_path))
