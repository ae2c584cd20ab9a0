"""Reading thousands of clips takes no more memory than reading hundreds, and leaves no file open."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cinefeed as cf
from cinefeed.core.rng import Stage, rng_for
from cinefeed.testing import numbered_frames, write_video

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="memory and open files are read from /proc")


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def read_clips(folder: Path, *, clips: int, leak: str) -> list[tuple[float, int]]:
    """Read clips of a folder's files in turn; `leak` keeps each clip, or each file open, to show that it is seen."""
    manifest, clip, batches, held = cf.Manifest.scan(folder), cf.Clip(frames=16), [], []
    for i in range(clips):
        row = i % len(manifest)
        metadata = manifest.metadata(row)
        indices, _ = clip.select(metadata.times, rng=rng_for(0, stage=Stage.CLIP, epoch=0, position=i))
        source = cf.open_video(manifest.path_of(row), channels=1 + 2 * (i % 2), metadata=metadata)
        frames = source.read(indices)
        if leak == "files":
            batches.append(source)
        else:
            source.close()
        if leak == "memory":
            batches.append(frames)
        if i % 100 == 99:
            held.append((resident_mb(), len(list(Path("/proc/self/fd").iterdir()))))
    return held


def held_by_reading(folder: Path, *, clips: int, leak: str = "") -> list[tuple[float, int]]:
    """Return the resident megabytes and the number of open files after each hundred clips, in a process of its own."""
    command = [sys.executable, __file__, str(folder), str(clips), leak]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Files of several kinds, each large enough that 200 clips kept are over 50 MB."""
    folder = tmp_path_factory.mktemp("videos")
    frames = numbered_frames(24, height=112, width=112)
    for codec, name in [("h264", "a.mp4"), ("mpeg4", "b.avi"), ("vp9", "c.webm")]:
        write_video(folder / name, frames, codec=codec)
    np.save(folder / "d.npy", frames)
    return folder


def test_memory_and_files_stay_few(folder):
    held = held_by_reading(folder, clips=300)
    assert held[-1][0] - held[0][0] < 10
    assert held[-1][1] == held[0][1]


@pytest.mark.parametrize("leak", ["memory", "files"])
def test_what_is_kept_is_noticed(folder, leak):
    held = held_by_reading(folder, clips=300, leak=leak)
    if leak == "memory":
        assert held[-1][0] - held[0][0] > 50
    else:
        assert held[-1][1] - held[0][1] > 100


@pytest.mark.slow
def test_five_thousand_clips_of_real_files(data, capsys):
    held = held_by_reading(data / "lips", clips=5000)
    grown = max(mb for mb, _ in held[5:]) - held[4][0]
    with capsys.disabled():
        print(f"\n5,000 clips: {held[4][0]:.0f} MB after 500, at most {grown:.1f} MB more; {held[-1][1]} files open")
    assert grown < 50
    assert held[-1][1] == held[4][1]


if __name__ == "__main__":
    json.dump(read_clips(Path(sys.argv[1]), clips=int(sys.argv[2]), leak=sys.argv[3]), sys.stdout)
