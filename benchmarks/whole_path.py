"""The feed against torch's DataLoader + torchcodec + grid_sample: the same clips, sizes, angles and shifts.

Run: python -m benchmarks.whole_path [--data ../shared/data/pocus] [--channels 1] [--backend thread] [--passes 4]
     [--runs 5] [--json out.json]
It needs torchcodec (pip install --no-deps torchcodec==0.13.0) and FFmpeg's libraries.

Three things are timed in one process, turn by turn, and the medians of their clips a second are compared:

decode:  the same frames decoded by as many threads, planes left untouched
feed:    cinefeed.Feed: 112 x 112, grey or RGB, 16 frames, stride 2, rotation and shift, uint8 batches of 16
peer:    DataLoader with as many worker processes, torchcodec, mean to grey, grid_sample, uint8 batches of 16;
         with torchcodec's own resize before the warp, and without: the faster one counts

Workers have started, and what they made ahead is dropped before each run, so that none begins with finished batches.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

import cinefeed as cf
from benchmarks.busy import busy_loops
from benchmarks.rows import DATA, Row, contestants, frames_problem, in_turns, rate, wrong_frames
from cinefeed.core.rng import Stage, rng_for

try:
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize
except (ImportError, RuntimeError, OSError) as error:
    raise SystemExit(f"the peer is missing ({type(error).__name__}); see the head of {__file__}") from error

SIDE, FRAMES, STRIDE, DEGREES, PIXELS, BATCH = 112, 16, 2, 25.0, 15.0, 16
NAMES = {  # on the benchmarks page
    "feed": "cinefeed",
    "decode alone": "decode alone",
    "peer, its own resize": "DataLoader + torchcodec, its resize",
    "peer, full size": "DataLoader + torchcodec, full size",
}
CHECK = "The decoded frames of 12 clips of the peer were compared with cinefeed's and with their neighbours."
LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)


def make_feed(manifest: cf.Manifest, workers: int, *, channels: int, backend: str) -> cf.Feed:
    """Return the feed whose speed is measured."""
    return cf.Feed(
        manifest,
        target=None,
        clip=cf.Clip(frames=FRAMES, stride=STRIDE),
        frame=cf.Frame(height=SIDE, width=SIDE, channels=channels),
        transforms=[cf.Rotate(degrees=DEGREES), cf.Shift(pixels=PIXELS)],
        batch_size=BATCH,
        workers=cf.Workers(count=workers, backend=backend),  # type: ignore[arg-type]
    )


def draws_of(feed: cf.Feed, epochs: range) -> list[tuple[int, np.ndarray]]:
    """Return the row and the frames of every draw of some epochs, as the feed takes them."""
    draws = []
    for epoch in epochs:
        for position, row in enumerate(feed.plan(epoch=epoch).rows):
            metadata = feed.manifest.metadata(int(row))
            rng = rng_for(feed.settings.seed, stage=Stage.CLIP, epoch=epoch, position=position)
            draws.append((int(row), feed.settings.clip.select(metadata.times, rng=rng)[0]))
    return draws


def decode_alone(feed: cf.Feed, epochs: range, workers: int) -> int:
    """Decode the epochs' frames, leaving the planes untouched."""
    channels = feed.settings.frame.channels

    def decode(draw: tuple[int, np.ndarray]) -> None:
        row, indices = draw
        with cf.open_video(
            feed.manifest.path_of(row), channels=channels, metadata=feed.manifest.metadata(row)
        ) as source:
            source.planes(indices)

    draws = draws_of(feed, epochs)
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(decode, draws):
            pass
    return len(draws)


def decoded(path: str, indices: list[int], resize: list[Resize] | None = None) -> torch.Tensor:
    """Return RGB frames (n, 3, height, width) by torchcodec."""
    # approximate: no scan of the file; its frames are not always the right ones, but it is the faster peer
    decoder = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="approximate", transforms=resize)
    last = decoder.metadata.num_frames - 1
    return decoder.get_frames_at([min(index, last) for index in indices]).data


def peer_frames_problem(feed: cf.Feed, *, draws: int = 12) -> str:
    """Return what is wrong with the peer's frames of the first draws, compared with cinefeed's and their neighbours."""
    compared = draws_of(feed, range(1))[:draws]
    wrong = 0
    for row, indices in compared:
        count = feed.manifest.metadata(row).times.count
        with feed.manifest.open(row, channels=3) as source:
            near = [source.read(np.clip(indices + step, 0, count - 1)) for step in (0, -1, 1)]
        size = near[0].shape[2], near[0].shape[1]  # torchcodec leaves pixels that are not square as they are stored
        pixels = decoded(str(feed.manifest.path_of(row)), indices.tolist()).permute(0, 2, 3, 1).numpy()
        frames = np.stack([cv2.resize(frame, size) for frame in pixels])
        wrong += wrong_frames(frames, near[0], neighbours=near[1:])
    return frames_problem(wrong, len(compared) * FRAMES)


class Peer(Dataset):
    """The same draws through torchcodec and grid_sample."""

    def __init__(self, feed: cf.Feed, epochs: range, *, resize: bool) -> None:
        self.draws = []
        for row, indices in draws_of(feed, epochs):
            metadata = feed.manifest.metadata(row)
            self.draws.append((str(feed.manifest.path_of(row)), indices.tolist(), metadata.height, metadata.width))
        self.resize, self.channels = resize, feed.settings.frame.channels

    def __len__(self) -> int:
        """Return the number of draws."""
        return len(self.draws)

    def __getitem__(self, position: int) -> torch.Tensor:
        """Return one clip, uint8 (frames, channels, height, width)."""
        path, indices, height, width = self.draws[position]
        resize = None
        if self.resize:
            scale = SIDE / min(height, width)
            height, width = max(SIDE, round(height * scale)), max(SIDE, round(width * scale))
            resize = [Resize((height, width))]
        pixels = decoded(path, indices, resize).float()
        pixels = (pixels * LUMA).sum(1, keepdim=True) if self.channels == 1 else pixels
        angle = math.radians(float(np.random.default_rng(position).uniform(-DEGREES, DEGREES)))
        shift = np.random.default_rng(position + 1).uniform(-PIXELS, PIXELS, 2) * 2 / SIDE
        zoom = min(height, width)
        x, y = zoom / width, zoom / height
        matrix = torch.tensor(
            [
                [math.cos(angle) * x, -math.sin(angle) * x, float(shift[0])],
                [math.sin(angle) * y, math.cos(angle) * y, float(shift[1])],
            ],
            dtype=torch.float32,
        )
        grid = F.affine_grid(matrix.expand(FRAMES, 2, 3), [FRAMES, self.channels, SIDE, SIDE], align_corners=False)
        return F.grid_sample(pixels, grid, align_corners=False).round().to(torch.uint8)


def run_peer(feed: cf.Feed, epochs: range, workers: int, *, resize: bool) -> int:
    """Run the peer, as one long epoch: its workers start once, and few batches are left for one alone at the end."""
    loader = DataLoader(Peer(feed, epochs, resize=resize), batch_size=BATCH, num_workers=workers)
    return sum(len(batch) for batch in loader)


def run_feed(feed: cf.Feed, epochs: range) -> int:
    """Run the feed."""
    feed.set_epoch(epochs[0])
    return sum(len(batch.ids) for _ in epochs for batch in feed)


def started_feed(manifest: cf.Manifest, workers: int, *, channels: int, backend: str) -> cf.Feed:
    """Return a feed whose workers have started, after an epoch."""
    feed = make_feed(manifest, workers, channels=channels, backend=backend)
    while not feed.workers_ready:
        run_feed(feed, range(10**6, 10**6 + 1))  # compiles the kernels, warms the disk's cache
    return feed


def measure(feed: cf.Feed, workers: int, *, runs: int, passes: int) -> dict[str, list[float]]:
    """Return the clips a second of each contestant and run."""
    ways: dict[str, Callable[[range], int]] = {
        "feed": lambda epochs: run_feed(feed, epochs),
        "decode alone": lambda epochs: decode_alone(feed, epochs, workers),
        "peer, its own resize": lambda epochs: run_peer(feed, epochs, workers, resize=True),
        "peer, full size": lambda epochs: run_peer(feed, epochs, workers, resize=False),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for run in range(runs):
        epochs = range(run * passes, (run + 1) * passes)
        for name, way in ways.items():
            rates[name].append(rate(lambda way=way, epochs=epochs: way(epochs)))
            feed.set_epoch(10**6)  # drops what was made ahead, and would serve the next run, or slow down a peer
    return rates


def rows(*, quick: bool) -> Iterator[Row | str]:
    """Yield the rows of the benchmarks page: clips a second, alone and beside endless loops, and a second worker."""
    torch.set_num_threads(1)
    runs = 1 if quick else 3
    for name, channels, backend, passes in (("pocus", 1, "thread", 1), ("lips", 3, "process", 1 if quick else 3)):
        if not (DATA / name).exists():
            yield f"`{name}` is left out: CINEFEED_DATA has no folder of this name."
            continue
        if quick and name == "pocus":
            continue
        manifest = cf.Manifest.scan(DATA / name, verify="packets", progress=False).readable()
        manifest = manifest.head(3 * BATCH) if quick else manifest
        feed = started_feed(manifest, 2, channels=channels, backend=backend)
        problem = peer_frames_problem(feed)
        what = f"{name}, {'grey' if channels == 1 else 'RGB'}, 2 {backend} workers"
        yield row_of(what, measure(feed, 2, runs=runs, passes=passes), problem)
        if name == "lips":
            with busy_loops(2):
                yield row_of(f"{what}, beside 2 loops", measure(feed, 2, runs=runs, passes=1), problem)
        feed.close()
        yield second_worker(what, manifest, problem, channels=channels, backend=backend, runs=runs)


def row_of(what: str, rates: dict[str, list[float]], problem: str) -> Row:
    """Return a row of clips a second."""
    return Row(
        what=what,
        unit="clips/s",
        check=CHECK,
        contestants=contestants(
            {NAMES[name]: values for name, values in rates.items()},
            bounds=["decode alone"],
            problems={name: problem for name in list(NAMES.values())[2:] if problem},
        ),
    )


def second_worker(what: str, manifest: cf.Manifest, problem: str, *, channels: int, backend: str, runs: int) -> Row:
    """Return the row of the gain by a second worker, each pair measured in turn."""
    feeds = {workers: started_feed(manifest, workers, channels=channels, backend=backend) for workers in (1, 2)}
    ways: dict[str, Callable[[int], int]] = {
        "cinefeed": lambda workers: run_feed(feeds[workers], range(1)),
        "DataLoader + torchcodec": lambda workers: run_peer(feeds[1], range(1), workers, resize=True),
    }

    def gain(way: Callable[[int], int]) -> float:
        values = []
        for workers in (1, 2):
            values.append(rate(lambda workers=workers: way(workers)))
            feeds[workers].set_epoch(10**6)
        return values[1] / values[0]

    values = in_turns({name: lambda way=way: gain(way) for name, way in ways.items()}, runs=runs)
    for feed in feeds.values():
        feed.close()
    problems = {name: problem for name in list(ways)[1:] if problem}
    return Row(
        what=f"{what} in place of 1",
        unit="times the clips/s of 1 worker",
        check=CHECK,
        contestants=contestants(values, problems=problems),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA / "pocus")
    parser.add_argument("--channels", type=int, choices=(1, 3), default=1)
    parser.add_argument("--backend", choices=("thread", "process"), default="thread")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--passes", type=int, default=4, help="times that each contestant goes over the data a run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    manifest = cf.Manifest.scan(options.data).readable()
    feed = started_feed(manifest, options.workers, channels=options.channels, backend=options.backend)
    rates = measure(feed, options.workers, runs=options.runs, passes=options.passes)
    medians = {name: statistics.median(each) for name, each in rates.items()}
    for name, each in rates.items():
        print(f"{name:22} {medians[name]:7.1f} clips/s   (from {min(each):.1f} to {max(each):.1f})")
    # Within a run the contestants follow each other; from run to run a shared machine may be twice as fast.
    faster = [max(pair) for pair in zip(rates["peer, its own resize"], rates["peer, full size"], strict=True)]
    for name, others in (("peer", faster), ("decode alone", rates["decode alone"])):
        ratios = [feed / other for feed, other in zip(rates["feed"], others, strict=True)]
        print(f"feed / {name}: {statistics.median(ratios):.2f} (median of {len(ratios)} runs, ", end="")
        print(f"from {min(ratios):.2f} to {max(ratios):.2f})")
    if options.json:
        options.json.write_text(json.dumps({"clips_per_second": rates, "medians": medians}, indent=1))


if __name__ == "__main__":
    main()
