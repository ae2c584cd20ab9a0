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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

import cinefeed as cf
from benchmarks.packing_peers import Batches, PeerSettings, arrays_peer, litdata_peer, peer_problem, webdataset_peer
from benchmarks.rows import Row, contestants, missing
from cinefeed.packing.pack import pack
from cinefeed.packing.settings import PackSettings
from cinefeed.testing.videos import write_video

STRIDE, DEGREES, PIXELS, BATCH = 2, 25.0, 15.0, 16
VIDEOS, LENGTH, HEIGHT, WIDTH = 16, 240, 240, 320
CODECS = "raw,ffv1,jpeg,h264"
CONTEST = ("data", "channels", "side", "frames", "workers", "codecs")  # options of a contest


def long_gops(folder: Path, *, videos: int = VIDEOS) -> Path:
    """Write videos of smooth moving noise with one key frame each."""
    folder.mkdir()
    for number in range(videos):
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


def count(batches: Iterator[torch.Tensor]) -> int:
    """Return the number of clips of some batches."""
    return sum(len(batch) for batch in batches)


@dataclass(kw_only=True)
class Contest:
    """All contestants by name: functions that run some epochs, the feeds behind some of them, sizes, and problems."""

    ways: dict[str, Callable[[range], int]] = field(default_factory=dict)
    feeds: dict[str, cf.Feed] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    packing_seconds: dict[str, float] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def add_peer(self, name: str, make: Callable[[], Batches], check: Callable[[Batches], str], size: int) -> None:
        """Add a peer whose frames are checked, or the problem that it cannot be made."""
        try:
            peer = make()
            problem = check(peer)
        except (ImportError, RuntimeError, OSError) as error:
            self.problems[name] = missing(error)
            return
        if problem:
            self.problems[name] = problem
        self.ways[name] = lambda epochs: count(peer(epochs))
        self.sizes[name] = size


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
    parser.add_argument("--codecs", default=CODECS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        contest = contest_of(Path(name), **{key: vars(options)[key] for key in CONTEST})
        if options.epochs:
            whole_time(contest.feeds, contest.packing_seconds, epochs=options.epochs)
        print_rates(contest, measure(contest, runs=options.runs, seconds=options.seconds))


def contest_of(
    folder: Path,
    *,
    data: Path | None,
    channels: int,
    side: int,
    frames: int,
    workers: int,
    codecs: str,
    videos: int = VIDEOS,
) -> Contest:
    """Pack, and collect the contestants."""
    torch.set_num_threads(1)
    peer = PeerSettings(side=side, frames=frames, stride=STRIDE, degrees=DEGREES, pixels=PIXELS, batch_size=BATCH)
    manifest = cf.Manifest.scan(data or long_gops(folder / "source", videos=videos), progress=False).readable()
    contest = Contest(feeds={"source": make_feed(manifest, peer, channels=channels, workers=workers)})
    contest.sizes["source"] = sum(
        path.stat().st_size for path in {manifest.path_of(row) for row in range(len(manifest))}
    )
    for codec in codecs.split(","):
        began = time.perf_counter()
        rows = -(-len(manifest) // 4)  # a shard for each worker of WebDataset
        settings = PackSettings(
            codec=codec, short_side=round(peer.side * 8 / 7), channels=channels, rows_per_shard=rows
        )
        pack(manifest, out=folder / codec, settings=settings, progress=False)
        contest.packing_seconds[codec] = time.perf_counter() - began
        packed = cf.Manifest.read(folder / codec)
        contest.feeds[codec] = make_feed(packed, peer, channels=channels, workers=workers)
        contest.sizes[codec] = bytes_in(folder / codec)
    raw = cf.Manifest.read(folder / "raw")
    arrays = write_arrays(raw, folder / "arrays", channels=channels)
    scanned = cf.Manifest.scan(folder / "arrays", progress=False)
    contest.feeds[".npy"] = make_feed(scanned, peer, channels=channels, workers=workers)
    contest.sizes[".npy"] = bytes_in(folder / "arrays")
    contest.ways |= {name: lambda epochs, feed=feed: run_feed(feed, epochs) for name, feed in contest.feeds.items()}
    contest.ways["transform alone"] = transform_alone(contest.feeds["raw"], raw)

    def check(videos: cf.Manifest) -> Callable[[Batches], str]:
        return lambda batches: peer_problem(batches(range(1)), videos, peer, channels=channels)

    npy_bytes = contest.sizes[".npy"]
    contest.add_peer(".npy, DataLoader", lambda: arrays_peer(arrays, peer, workers), check(raw), npy_bytes)
    contest.add_peer(
        ".npy, LitData", lambda: litdata_peer(arrays, folder / "litdata", peer, workers), check(raw), npy_bytes
    )
    for codec in codecs.split(","):
        make = partial(webdataset_peer, folder / codec, peer, workers)
        contest.add_peer(f"{codec}, WebDataset", make, check(cf.Manifest.read(folder / codec)), contest.sizes[codec])
    add_torchcodec(contest, peer, workers)
    return contest


def add_torchcodec(contest: Contest, peer: PeerSettings, workers: int) -> None:
    """Add torchcodec on the source, with a DataLoader, where its clips have the size of the others."""
    try:
        from benchmarks.whole_path import FRAMES, SIDE, peer_frames_problem, run_peer
    except SystemExit as error:
        contest.problems["torchcodec"] = missing(error)
        return
    if (peer.side, peer.frames) != (SIDE, FRAMES):
        return
    feed = contest.feeds["source"]
    problem = peer_frames_problem(feed)
    for resize, label in ((True, "torchcodec, resized"), (False, "torchcodec, full size")):
        contest.ways[label] = lambda epochs, resize=resize: run_peer(feed, epochs, workers, resize=resize)
        contest.sizes[label] = contest.sizes["source"]
        if problem:
            contest.problems[label] = problem


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


def measure(contest: Contest, *, runs: int, seconds: float) -> dict[str, list[float]]:
    """Run the contestants in turn; return the clips a second of each run."""
    for feed in contest.feeds.values():
        run_feed(feed, range(10**6, 10**6 + 1))  # compiles the kernels, warms the disk's cache
    rates: dict[str, list[float]] = {name: [] for name in contest.ways}
    passes = {name: enough_passes(way, seconds) for name, way in contest.ways.items()}
    for run in range(1, runs + 1):
        for name, way in contest.ways.items():
            for feed in contest.feeds.values():
                feed.set_epoch(10**6)
            began = time.perf_counter()
            clips = way(range(run * passes[name], (run + 1) * passes[name]))
            rates[name].append(clips / (time.perf_counter() - began))
    return rates


def print_rates(contest: Contest, rates: dict[str, list[float]]) -> None:
    """Print medians, ratios to the source's feed and to torchcodec, sizes, and problems."""
    fastest_peer = [max(each) for each in zip(*(rates[name] for name in rates if "torchcodec" in name), strict=True)]
    for name, each in rates.items():
        line = f"{name:22} {statistics.median(each):8.1f} clips/s ({min(each):.1f} to {max(each):.1f})"
        line += f"   {contest.sizes[name] / 1e6:8.1f} MB" if name in contest.sizes else " " * 14
        for other, others in (("source", rates["source"]), ("torchcodec", fastest_peer)):
            if others:
                ratio = statistics.median(one / two for one, two in zip(each, others, strict=True))
                line += f"   {ratio:6.2f} times {other}"
        print(line, flush=True)
    for name, problem in contest.problems.items():
        print(f"{name} {problem}")


def rows(*, quick: bool) -> Iterator[Row]:
    """Yield the rows of the benchmarks page, all measured in the same runs: `.npy` files, and each codec."""
    sides = {"channels": 3, "side": 112, "frames": 16, "workers": 1, "videos": 4 if quick else VIDEOS}
    with tempfile.TemporaryDirectory() as folder:
        contest = contest_of(Path(folder), data=None, codecs="raw,jpeg" if quick else CODECS, **sides)
        rates = measure(contest, runs=1 if quick else 3, seconds=0.2 if quick else 1.0)
    packed = [name for name in contest.feeds if name not in ("source", ".npy")]
    torchcodec = [name for name in [*rates, *contest.problems] if name.startswith("torchcodec")]
    peers = {
        ".npy": [".npy, DataLoader", ".npy, LitData"],
        **{codec: [f"{codec}, WebDataset"] for codec in packed},
        "source": torchcodec,
    }
    peers["raw"] += [".npy, DataLoader", ".npy, LitData"]  # the same bytes in another container
    for name, others in peers.items():
        values = {f"cinefeed, {name}": rates[name]} | {peer: rates[peer] for peer in others if peer in rates}
        problems = {peer: contest.problems[peer] for peer in others if peer in contest.problems}
        if name == "raw":
            values["cinefeed, the transform alone"] = rates["transform alone"]
        sizes = {f"cinefeed, {name}": contest.sizes[name]} | contest.sizes
        yield Row(
            what="the source, H.264, one key frame in 240" if name == "source" else f"`{name}`",
            unit="clips/s",
            check="A clip of every video of every peer was compared with cinefeed's frames and with their neighbours.",
            contestants=contestants(
                values,
                problems=problems,
                bounds=["cinefeed, the transform alone"],
                notes={each: f"{size / 1e6:.1f} MB" for each, size in sizes.items()},
            ),
        )


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
