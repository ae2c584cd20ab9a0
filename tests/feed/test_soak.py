"""Many epochs: no growth of memory, handles, threads or processes, in the parent and in its workers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import cinefeed as cf
from cinefeed.testing import numbered_frames, write_video

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="figures of processes are read in /proc")
MB = 2**20
# After each epoch: resident bytes of parent and workers, and the counts that should never change.
SCRIPT = """
import json, os, sys
from concurrent.futures import wait
from pathlib import Path
import cinefeed as cf

def resident(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) * 1024

def workers():
    lists = Path("/proc/self/task").glob("*/children")
    return sorted(int(pid) for each in lists for pid in each.read_text().split())

def handles(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))

settings = json.loads(sys.argv[2])
leaks, epochs = settings["leaks"], settings["epochs"]
feed = cf.Feed(
    cf.Manifest.read(sys.argv[1]), target=None, clip=cf.Clip(frames=16),
    frame=cf.Frame(height=32, width=32, channels=3), transforms=[cf.Rotate(degrees=25), cf.Brightness(factor=0.2)],
    batch_size=16, workers=cf.Workers(count=2, backend=settings["backend"]),
)
while not feed.workers_ready:  # one that starts opens files
    for batch in feed:
        del batch
kept, measured = [], []
for _ in range(epochs):
    for batch in feed:
        del batch
    if leaks == "memory":
        kept.append(bytearray(b"x" * 2**20))
    if leaks == "handles":
        kept.append(open("/dev/null"))
    prefetcher = feed._epochs._prefetcher
    wait([clip for pending in prefetcher.pending for clip in pending.clips])  # of the next epoch, whose files are open
    measured.append({
        "parent": resident("self"),
        "workers": sum(map(resident, workers())),
        "handles": [handles(pid) for pid in ("self", *workers())],
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "processes": workers(),
    })
print(json.dumps(measured))
"""


def soak(manifest, path, *, epochs, backend, leaks=""):
    """Feed some epochs in a process of its own, and return what was measured after each."""
    manifest.write(path)
    settings = json.dumps({"epochs": epochs, "backend": backend, "leaks": leaks})
    done = subprocess.run([sys.executable, "-c", SCRIPT, path, settings], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def counts_that_change(measured, *, after):
    """Return what is counted otherwise at the end than after some epochs, or at any time between."""
    first = measured[after - 1]
    return {
        name for each in measured[after:] for name in ("handles", "threads", "processes") if each[name] != first[name]
    }


def growth(measured, *, after):
    """Return how far resident memory went up since some epochs, in bytes, parent and workers together."""
    resident = [each["parent"] + each["workers"] for each in measured]
    return max(resident[after:]) - resident[after - 1]


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_ten_epochs(manifest, tmp_path, backend):
    measured = soak(manifest, tmp_path / "m.parquet", epochs=10, backend=backend)
    assert counts_that_change(measured, after=3) == set()
    assert len(measured[-1]["processes"]) == (2 if backend == "process" else 0)


READING = """
import sys
from pathlib import Path
import cinefeed as cf

def resident():
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) * 1024

metadata = cf.probe(sys.argv[1])
for number in range(12000):
    if number == 4000:  # the heap has settled: from here 36,000 files took 40 kB
        before = resident()
    with cf.open_video(sys.argv[1], metadata=metadata) as source:
        source.planes([5])
print((resident() - before) / 8000)
"""


def test_a_video_read_in_part_leaves_nothing(tmp_path):
    """In bytes a file: what is too little for a short soak is 250 MB an epoch of a million clips."""
    path = write_video(tmp_path / "a.mp4", numbered_frames(30, height=48, width=48), codec="mpeg4")
    done = subprocess.run([sys.executable, "-c", READING, path], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 50


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["thread", "process"])
def test_two_hundred_epochs_of_lips(data, tmp_path, backend):
    manifest = cf.Manifest.scan(data / "lips", verify="packets", progress=False)
    measured = soak(manifest, tmp_path / "m.parquet", epochs=200, backend=backend)
    for name in ("parent", "workers"):
        megabytes = " ".join(f"{measured[epoch - 1][name] / MB:.0f}" for epoch in (1, 10, 50, 100, 150, 200))
        print(f"{backend}: {name} {megabytes} MB after 1, 10, 50, 100, 150 and 200 epochs")
    assert counts_that_change(measured, after=10) == set()
    assert growth(measured, after=10) < 30 * MB


def test_a_leak_is_found(manifest, tmp_path):
    """A megabyte or a handle more an epoch."""
    measured = soak(manifest, tmp_path / "m.parquet", epochs=50, backend="thread", leaks="memory")
    assert growth(measured, after=10) > 30 * MB and counts_that_change(measured, after=10) == set()
    measured = soak(manifest, tmp_path / "m.parquet", epochs=11, backend="thread", leaks="handles")
    assert counts_that_change(measured, after=10) == {"handles"}
