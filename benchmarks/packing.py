"""Feeds on packed shards against the feed, torchcodec, WebDataset and LitData: clips a second, and size on disk.

Run: python -m benchmarks.packing [--data ../shared/data/pocus] [--channels 3] [--side 112] [--frames 16] [--workers 1]
     [--seconds 1] [--runs 3] [--codecs raw,ffv1,jpeg,h264] [--epochs 0]
The peers need torchcodec (as in benchmarks.whole_path), webdataset and litdata; one that is not installed is left out.

Without --data the source is 16 H.264 videos of 240 frames, 240 x 320, with one key frame each: a clip needs the
decoding of up to 240 frames. Videos are packed with a shorter side of 8/7 of the frame, in the time that is printed,
and fed as uint8 clips with stride 2, rotated and shifted, in batches of 16. The contestants follow each other in each
run, each with as many passes over the data as take --seconds or more; medians and ratios within the runs are printed.
What was made ahead is dropped before each run. "transform alone" is the transform of frames that are in memory, on one
thread.

With --epochs N the time of packing and N epochs of each codec is printed too, against N epochs of the source.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

import cinefeed as cf
from benchmarks.packing_peers import PeerSettings, arrays_peer, litdata_peer, webdataset_peer
from cinefeed.packing.pack import pack
from cinefeed.packing.settings import PackSettings
from cinefeed.testing.videos import write_video

STRIDE, DEGREES, PIXELS, BATCH = 2, 25.0, 15.0, 16
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


def make_feed(manifest: cf.Manifest, peer: PeerSettings, *, channels: int, workers: int) -> cf.Feed:
    """Return the feed whose speed is measured."""
    return cf.Feed(
        manifest,
        target=None,
        clip=cf.Clip(frames=peer.frames, stride=peer.stride),
        frame=cf.Frame(height=peer.side, width=peer.side, channels=channels),
        transforms=[cf.Rotate(degrees=peer.degrees), cf.Shift(pixels=peer.pixels)],
        batch_size=peer.batch_size,
        workers=workers,
    )


def run_feed(feed: cf.Feed, epochs: range) -> int:
    """Run a feed; return the number of clips."""
    feed.set_epoch(epochs[0])
    return sum(len(batch.ids) for _ in epochs for batch in feed)


def write_arrays(packed: cf.Manifest, folder: Path, *, channels: int) -> list[Path]:
    """Write the packed pixels, one `.npy` a video."""
    folder.mkdir()
    paths = []
    for row in range(len(packed)):
        with packed.open(row, channels=channels) as source:
            paths.append(folder / f"{row:06}.npy")
            np.save(paths[-1], source.read(range(len(source))))
    return paths


def transform_alone(feed: cf.Feed, packed: cf.Manifest) -> Callable[[range], int]:
    """Return a function that transforms one clip of each video, whose frames are in memory, for each epoch."""
    settings, compose, planes = feed.settings, feed.compose, []
    for row in range(len(packed)):
        with packed.open(row, channels=settings.frame.channels) as source:
            numbers = np.minimum(np.arange(settings.clip.frames) * settings.clip.stride, len(source) - 1)
            planes.append(source.planes(numbers))
    frame = settings.frame
    out = np.empty((settings.clip.frames, frame.height, frame.width, frame.channels), np.uint8)

    def run(epochs: range) -> int:
        for epoch in epochs:
            for row, each in enumerate(planes):
                rng = np.random.default_rng((epoch, row))
                turn = {"degrees": rng.uniform(-DEGREES, DEGREES)}
                right, down = rng.uniform(-PIXELS, PIXELS, 2)
                compose.render(each, out, [turn, {"right": right, "down": down}])
        return len(epochs) * len(planes)

    return run


def bytes_in(folder: Path) -> int:
    """Return the size of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--channels", type=int, choices=(1, 3), default=3)
    parser.add_argument("--side", type=int, default=112)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--codecs", default="raw,ffv1,jpeg,h264")
    options = parser.parse_args()
    torch.set_num_threads(1)
    peer = PeerSettings(
        side=options.side,
        frames=options.frames,
        stride=STRIDE,
        degrees=DEGREES,
        pixels=PIXELS,
        batch_size=BATCH,
    )
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), options, peer)


def compare(folder: Path, options: argparse.Namespace, peer: PeerSettings) -> None:
    """Pack, collect the contestants, and measure them."""
    channels, workers = options.channels, options.workers
    manifest = cf.Manifest.scan(options.data or long_gops(folder / "source"), progress=False).readable()
    feeds = {"source": make_feed(manifest, peer, channels=channels, workers=workers)}
    sizes = {"source": sum(path.stat().st_size for path in {manifest.path_of(row) for row in range(len(manifest))})}
    packing_seconds = {}
    for codec in options.codecs.split(","):
        began = time.perf_counter()
        rows = -(-len(manifest) // 4)  # a shard for each worker of WebDataset
        side = round(peer.side * 8 / 7)
        settings = PackSettings(codec=codec, short_side=side, channels=channels, rows_per_shard=rows)
        pack(manifest, out=folder / codec, settings=settings, progress=False)
        packing_seconds[codec] = time.perf_counter() - began
        print(f"packed as {codec} in {packing_seconds[codec]:.1f} s")
        packed = cf.Manifest.read(folder / codec)
        feeds[codec] = make_feed(packed, peer, channels=channels, workers=workers)
        sizes[codec] = bytes_in(folder / codec)
    contestants: dict[str, Callable[[range], int]] = {
        name: lambda epochs, feed=feed: run_feed(feed, epochs) for name, feed in feeds.items()
    }
    if options.epochs:
        whole_time(feeds, packing_seconds, epochs=options.epochs)
    raw = cf.Manifest.read(folder / "raw")
    arrays = write_arrays(raw, folder / "arrays", channels=channels)
    contestants["transform alone"] = transform_alone(feeds["raw"], raw)
    contestants["npy, DataLoader"] = arrays_peer(arrays, peer, workers)
    sizes["npy, DataLoader"] = bytes_in(folder / "arrays")
    try:
        contestants["npy, LitData"] = litdata_peer(arrays, folder / "litdata", peer, workers)
        sizes["npy, LitData"] = bytes_in(folder / "litdata")
    except ImportError as error:
        print(error)
    for codec in options.codecs.split(","):
        try:
            contestants[f"{codec}, WebDataset"] = webdataset_peer(folder / codec, peer, workers)
            sizes[f"{codec}, WebDataset"] = sizes[codec]
        except ImportError as error:
            print(error)
    try:
        from benchmarks.whole_path import FRAMES, SIDE, run_peer

        if (peer.side, peer.frames) == (SIDE, FRAMES):
            for resize, label in ((True, "torchcodec, resized"), (False, "torchcodec, full size")):
                contestants[label] = lambda epochs, resize=resize: run_peer(
                    feeds["source"], epochs, workers, resize=resize
                )
                sizes[label] = sizes["source"]
    except SystemExit as error:
        print(error)
    measure(contestants, sizes, feeds, runs=options.runs, seconds=options.seconds)


def whole_time(feeds: dict[str, cf.Feed], packing_seconds: dict[str, float], *, epochs: int) -> None:
    """Print the time of epochs of each feed, that of packing included."""
    source_seconds = 0.0
    for name, feed in feeds.items():
        run_feed(feed, range(10**6, 10**6 + 1))
        feed.set_epoch(10**6)
        began = time.perf_counter()
        run_feed(feed, range(epochs))
        seconds = time.perf_counter() - began
        source_seconds = source_seconds or seconds
        whole = seconds + packing_seconds.get(name, 0.0)
        ratio = source_seconds / whole
        print(f"{name:8} {epochs} epochs {seconds:7.1f} s, with packing {whole:7.1f} s: {ratio:.2f} times as fast")


def measure(contestants, sizes, feeds, *, runs: int, seconds: float) -> None:
    """Run the contestants in turn, and print medians, ratios to the source's feed, and sizes."""
    for feed in feeds.values():
        run_feed(feed, range(10**6, 10**6 + 1))  # compiles the kernels, warms the disk's cache
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    passes = {name: enough_passes(contestant, seconds) for name, contestant in contestants.items()}
    for run in range(1, runs + 1):
        for name, contestant in contestants.items():
            for feed in feeds.values():
                feed.set_epoch(10**6)
            began = time.perf_counter()
            clips = contestant(range(run * passes[name], (run + 1) * passes[name]))
            rates[name].append(clips / (time.perf_counter() - began))
    fastest_peer = [max(each) for each in zip(*(rates[name] for name in rates if "torchcodec" in name), strict=True)]
    for name, each in rates.items():
        line = f"{name:22} {statistics.median(each):8.1f} clips/s ({min(each):.1f} to {max(each):.1f})"
        line += f"   {sizes[name] / 1e6:8.1f} MB" if name in sizes else " " * 14
        for other, others in (("source", rates["source"]), ("torchcodec", fastest_peer)):
            if others:
                ratio = statistics.median(one / two for one, two in zip(each, others, strict=True))
                line += f"   {ratio:6.2f} times {other}"
        print(line, flush=True)


def enough_passes(contestant: Callable[[range], int], seconds: float) -> int:
    """Return a number of passes over the data that takes about so many seconds, or more."""
    passes, elapsed = 1, 0.0
    while elapsed < seconds / 2:
        began = time.perf_counter()
        contestant(range(passes))
        elapsed = time.perf_counter() - began
        if elapsed < seconds / 2:
            passes = min(math.ceil(1.2 * passes * seconds / elapsed), 10 * passes)
    return math.ceil(passes * max(seconds / elapsed, 1))


if __name__ == "__main__":
    main()
