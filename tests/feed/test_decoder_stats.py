"""`feed.stats()` says which decoder read encoded video, and why, whoever the workers are."""

import os
import subprocess
import sys
import textwrap
from contextlib import closing

import numpy as np
import pyarrow as pa
import pytest

import cinefeed as cf
from cinefeed.feed.stats import Stats
from cinefeed.testing import numbered_frames, write_video
from cinefeed.video.ffmpeg.decoder import decoder_choice

needs_linux = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="worker processes need Linux")
BACKENDS = ["thread", pytest.param("process", marks=needs_linux)]


def feed_of(folder, names, **settings):
    for name in names:
        if name.endswith(".npy"):
            np.save(folder / name, np.zeros((12, 16, 16), np.uint8))
        else:
            write_video(folder / name, numbered_frames(12, height=32, width=32))
    table = pa.table({"id": names, "path": names, "label": [number % 2 for number in range(len(names))]})
    manifest = cf.Manifest.from_table(table, root=folder)
    return cf.Feed(
        manifest,
        target="label",
        clip=cf.Clip(frames=4),
        frame=cf.Frame(height=16, width=16, channels=1),
        batch_size=4,
        **settings,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_files_are_counted_by_what_decoded_them(tmp_path, backend):
    workers = cf.Workers(count=1, backend=backend)
    with closing(feed_of(tmp_path, ["a.mp4", "b.mp4", "c.mkv", "d.npy"], workers=workers)) as feed:
        assert feed.stats().decoder == ""
        for _ in feed:
            pass
        stats = feed.stats()
    assert (stats.compiled, stats.pyav) == (2, 1)
    assert stats.decoder == f"compiled: {decoder_choice().reason}"
    assert stats.as_dict()["decoder"] == stats.decoder
    assert stats.since(Stats()).decoder == stats.decoder


def test_a_feed_of_arrays_says_nothing(tmp_path):
    with closing(feed_of(tmp_path, ["a.npy", "b.npy"])) as feed:
        for _ in feed:
            pass
        assert (feed.stats().compiled, feed.stats().pyav, feed.stats().decoder) == (0, 0, "")


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_unknown_library_is_told_of_once(tmp_path, backend):
    """In a process of its own, whose worker processes find the same library."""
    feed_of(tmp_path, ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]).close()
    script = f"""
        import cinefeed as cf
        manifest = cf.Manifest.scan({str(tmp_path)!r}, progress=False)
        frame = cf.Frame(height=16, width=16, channels=1)
        settings = {{"clip": cf.Clip(frames=4), "frame": frame, "batch_size": 2, "target": None}}
        feed = cf.Feed(manifest, workers=cf.Workers(count=2, backend={backend!r}), **settings)
        for _ in range(2):
            for _ in feed:
                pass
        stats = feed.stats()
        feed.close()
        print(stats.compiled, stats.pyav, stats.decoder)
    """
    (tmp_path / "sitecustomize.py").write_text('import av\nav.library_versions["libavcodec"] = (99, 0, 0)\n')
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("0 8 PyAV: compiled code was tested with libavcodec 62, 63, this is 99")
    assert done.stderr.count("encoded video is read by PyAV") == 1
