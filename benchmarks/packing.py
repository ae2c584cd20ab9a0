"""Feeds on packed shards against the feed and torchcodec on the source: clips a second, and size on disk.

Run: python -m benchmarks.packing [--data ../shared/data/pocus] [--channels 3] [--workers 1] [--runs 3]
     [--codecs raw,ffv1,jpeg,h264]
The peer needs torchcodec, as in benchmarks.whole_path; without it the other rows are measured.

Without --data the source is 16 H.264 videos of 240 frames, 240 x 320, with one key frame each: a clip needs the
decoding of up to 250 frames. Videos are packed with a shorter side of 128, in the time that is printed, and fed as
112 x 112, 16 frames, stride 2, uint8, rotated and shifted, in batches of 16. The contestants follow each other in each
run; medians and ratios within the runs are printed. What was made ahead is dropped before each run.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import cinefeed as cf
from cinefeed.packing.pack import pack
from cinefeed.packing.settings import PackSettings
from cinefeed.testing.videos import write_video

SIDE, FRAMES, STRIDE, DEGREES, PIXELS, BATCH, SHORT_SIDE = 112, 16, 2, 25.0, 15.0, 16, 128
VIDEOS, LENGTH, HEIGHT, WIDTH = 16, 240, 240, 320


def long_gops(folder: Path) -> Path:
    """Write videos of smooth moving noise with one key frame each."""
    folder.mkdir()
    for number in range(VIDEOS):
        steps = np.random.default_rng(number).integers(-6, 7, (LENGTH, HEIGHT // 16, WIDTH // 16, 3)).cumsum(axis=0)
        small = np.clip(steps + 128, 0, 255).astype(np.uint8)
        frames = np.stack([cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for frame in small])
        write_video(folder / f"{number:02}.mp4", frames, gop=250)
    return folder


def make_feed(manifest: cf.Manifest, *, channels: int, workers: int) -> cf.Feed:
    """Return the feed whose speed is measured."""
    return cf.Feed(
        manifest,
        target=None,
        clip=cf.Clip(frames=FRAMES, stride=STRIDE),
        frame=cf.Frame(height=SIDE, width=SIDE, channels=channels),
        transforms=[cf.Rotate(degrees=DEGREES), cf.Shift(pixels=PIXELS)],
        batch_size=BATCH,
        workers=workers,
    )


def run_feed(feed: cf.Feed, epochs: range) -> int:
    """Run a feed; return the number of clips."""
    feed.set_epoch(epochs[0])
    return sum(len(batch.ids) for _ in epochs for batch in feed)


class Arrays(Dataset):
    """Clips of whole packed videos in `.npy` files, cut by a memory map and turned by OpenCV: a plain DataLoader."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        """Return one clip, uint8 (frames, height, width, 3)."""
        rng = np.random.default_rng(index)
        video = np.load(self.paths[index], mmap_mode="r")
        start = int(rng.integers(0, max(len(video) - (FRAMES - 1) * STRIDE, 1)))
        frames = video[start : start + (FRAMES - 1) * STRIDE + 1 : STRIDE]
        height, width = frames.shape[1:3]
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.uniform(-DEGREES, DEGREES)), 1.0)
        matrix[:, 2] += rng.uniform(-PIXELS, PIXELS, 2) + (SIDE - width) / 2
        clip = np.stack([cv2.warpAffine(np.ascontiguousarray(frame), matrix, (SIDE, SIDE)) for frame in frames])
        return torch.from_numpy(clip)


def run_arrays(paths: list[Path], times: int, workers: int) -> int:
    """Run the DataLoader over the arrays."""
    loader = DataLoader(Arrays(paths * times), batch_size=BATCH, num_workers=workers)
    return sum(len(batch) for batch in loader)


def write_arrays(manifest: cf.Manifest, folder: Path) -> list[Path]:
    """Write the packed pixels as RGB, one `.npy` a video of at least a clip's length."""
    folder.mkdir()
    paths = []
    for row in range(len(manifest)):
        with manifest.open(row, channels=3) as source:
            if len(source) > (FRAMES - 1) * STRIDE:
                frames = source.read(range(len(source)))
                scale = SHORT_SIDE / min(frames.shape[1:3])
                size = (round(frames.shape[2] * scale), round(frames.shape[1] * scale))
                paths.append(folder / f"{row:06}.npy")
                np.save(paths[-1], np.stack([cv2.resize(frame, size) for frame in frames]))
    return paths


def bytes_in(folder: Path) -> int:
    """Return the size of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--channels", type=int, choices=(1, 3), default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--codecs", default="raw,ffv1,jpeg,h264")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = cf.Manifest.scan(options.data or long_gops(folder / "source"), progress=False).readable()
        feeds = {"source": make_feed(manifest, channels=options.channels, workers=options.workers)}
        sizes = {"source": sum(path.stat().st_size for path in {manifest.path_of(row) for row in range(len(manifest))})}
        for codec in options.codecs.split(","):
            began = time.perf_counter()
            settings = PackSettings(codec=codec, short_side=SHORT_SIDE, channels=options.channels)
            pack(manifest, out=folder / codec, settings=settings, progress=False)
            print(f"packed as {codec} in {time.perf_counter() - began:.1f} s")
            packed = cf.Manifest.read(folder / codec)
            feeds[codec] = make_feed(packed, channels=options.channels, workers=options.workers)
            sizes[codec] = bytes_in(folder / codec)
        contestants: dict[str, Callable[[range], int]] = {
            name: lambda epochs, feed=feed: run_feed(feed, epochs) for name, feed in feeds.items()
        }
        arrays = write_arrays(manifest, folder / "arrays")
        contestants["npy + DataLoader"] = lambda epochs: run_arrays(arrays, len(epochs), options.workers)
        sizes["npy + DataLoader"] = bytes_in(folder / "arrays")
        try:
            from benchmarks.whole_path import run_peer
        except SystemExit as error:
            print(error)
        else:
            for resize, label in ((True, "torchcodec, resized"), (False, "torchcodec, full size")):
                contestants[label] = lambda epochs, resize=resize: run_peer(
                    feeds["source"], epochs, options.workers, resize=resize
                )
                sizes[label] = sizes["source"]
        measure(contestants, sizes, feeds, runs=options.runs, passes=options.passes)


def measure(contestants, sizes, feeds, *, runs: int, passes: int) -> None:
    """Run the contestants in turn, and print medians, ratios to the source's feed, and sizes."""
    for feed in feeds.values():
        run_feed(feed, range(10**6, 10**6 + 1))  # compiles the kernels, warms the disk's cache
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for run in range(runs):
        for name, contestant in contestants.items():
            for feed in feeds.values():
                feed.set_epoch(10**6)
            began = time.perf_counter()
            clips = contestant(range(run * passes, (run + 1) * passes))
            rates[name].append(clips / (time.perf_counter() - began))
    fastest_peer = [max(each) for each in zip(*(rates[name] for name in rates if "torchcodec" in name), strict=True)]
    for name, each in rates.items():
        line = f"{name:22} {statistics.median(each):8.1f} clips/s ({min(each):.1f} to {max(each):.1f})"
        line += f"   {sizes[name] / 1e6:8.1f} MB"
        for other, others in (("source", rates["source"]), ("torchcodec", fastest_peer)):
            if others:
                ratio = statistics.median(one / two for one, two in zip(each, others, strict=True))
                line += f"   {ratio:6.2f} times {other}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
