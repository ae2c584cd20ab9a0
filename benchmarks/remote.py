"""Feeds of remote videos, through a proxy with latency, against local files, WebDataset and LitData: clips a second.

Run: python -m benchmarks.remote [--videos 240] [--latency-ms 20] [--workers 2] [--runs 3]
All read from one S3 server on loopback (moto, in a process of its own) through a proxy that delays each request. A peer
that is not installed (webdataset, litdata) is left out.

The data are raw videos of noise, 32 frames of 96 x 112, 344 kB each: as loose `.npy` files, as packed shards of 32
videos, which WebDataset streams too, and as LitData's chunks of the same size. Each makes the same uint8 clips of 16
frames, turned and shifted, in batches of 16; "in order" is an evaluation, "fetching alone" makes none. Before it is
timed, a feed makes an epoch of local files, which loads its compiled loops. The first epoch begins with an empty cache,
the second has it; WebDataset has none. Contestants run in processes of their own, one after the other, in another order
each time; medians are printed.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

import cinefeed as cf
from benchmarks.packing_peers import PeerSettings, peer_problem
from benchmarks.rows import Row, contestants
from cinefeed.packing.pack import pack
from cinefeed.packing.settings import PackSettings

sys.path.append(str(Path(__file__).parents[1] / "tests" / "remote"))
from servers import AWS, BUCKET, proxy, s3_server

FRAMES, HEIGHT, WIDTH, ROWS_PER_SHARD = 32, 96, 112, 32
PEER = PeerSettings(side=96, frames=16, stride=2, degrees=25.0, pixels=10.0, batch_size=16)
LOCAL, LOOSE, PACKED = "cinefeed, local files", "cinefeed, loose files", "cinefeed, packed shards"
IN_ORDER = f"{PACKED}, in order"
FETCHING, WEBDATASET, LITDATA = "fetching alone, loose files", "WebDataset, packed shards", "LitData, its chunks"
Peer = Callable[[], Iterator[torch.Tensor]]  # the batches of an epoch
Epochs = Generator[int, None, None]  # the clips of an epoch, one after the other


def serve(folder: Path, latency_seconds: float, addresses: Any) -> None:
    """Serve a folder until the process is ended."""
    with s3_server(folder) as upstream, proxy(upstream, latency_seconds=latency_seconds) as address:
        addresses.put(address)
        time.sleep(1e6)


def write_data(folder: Path, videos: int, *, has_litdata: bool) -> None:
    """Write loose files, packed shards and, if wanted, LitData's chunks of the same videos."""
    rng = np.random.default_rng(1)
    (folder / "loose").mkdir(parents=True)
    for number in range(videos):
        np.save(folder / f"loose/{number:05}.npy", rng.integers(0, 255, (FRAMES, HEIGHT, WIDTH), np.uint8))
    loose = cf.Manifest.scan(folder / "loose", progress=False)
    loose.write(folder / "loose.parquet")
    settings = PackSettings(codec="copy", rows_per_shard=ROWS_PER_SHARD)
    pack(loose, out=folder / "packed", settings=settings, workers=1, progress=False)
    if has_litdata:
        import litdata

        litdata.optimize(
            fn=_load,
            inputs=[str(path) for path in sorted((folder / "loose").iterdir())],
            output_dir=str(folder / "litdata"),
            chunk_size=ROWS_PER_SHARD,
            num_workers=1,
        )


def _load(path: str) -> dict[str, Any]:
    return {"video": np.load(path)}


def feed_epochs(
    manifest: cf.Manifest, cache: Path, workers: int, verdict: list[str], *, in_order: bool = False
) -> Epochs:
    """Yield the number of clips of each epoch of a feed; `verdict[0]` becomes that of the first, with its requests.

    With `in_order`, it is that of an evaluation, without turns and shifts, in the order of the rows.
    """
    feed = cf.Feed(
        manifest,
        target=None,
        clip=cf.Clip(frames=PEER.frames, stride=PEER.stride),
        frame=cf.Frame(height=PEER.side, width=PEER.side, channels=1),
        transforms=[cf.Rotate(degrees=PEER.degrees), cf.Shift(pixels=PEER.pixels)],
        batch_size=PEER.batch_size,
        workers=cf.Workers(count=workers, cache=cache),
    )
    feed = feed.evaluation(manifest, labelled=False, clips=1) if in_order else feed
    try:
        while True:
            clips = sum(len(batch.ids) for batch in feed)
            verdict[0] = verdict[0] or f"{feed.stats().requests} requests; {feed.stats().verdict}"
            yield clips
    finally:
        feed.close()


def fetch_epochs(manifest: cf.Manifest, cache: Path) -> Epochs:
    """Yield the number of files after each fetch of all of them, without a feed."""
    rows = manifest.rows.with_cache(cache, None)
    assert rows.remote is not None
    while True:
        fetches = [rows.remote.start(rows.member(row)) for row in range(len(manifest))]
        for fetch in fetches:
            fetch.result()[0].release()
        yield len(fetches)


def webdataset_peer(address: str, shards: list[str], workers: int) -> Peer:
    """Return a function that iterates over an epoch of WebDataset, which streams the packed shards."""
    import webdataset

    def clip(sample: dict[str, bytes]) -> torch.Tensor:
        video, seed = np.load(io.BytesIO(sample["npy"])), int(sample["__key__"])
        return PEER.turned(video[PEER.indices(len(video), seed)], seed)

    urls = [f"pipe:curl -s -f {address}/{BUCKET}/{shard}" for shard in shards]
    samples = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
    videos = samples.select(lambda sample: "npy" in sample).map(clip)
    loader = DataLoader(videos, batch_size=PEER.batch_size, num_workers=workers, persistent_workers=workers > 0)
    return lambda: iter(loader)


def litdata_peer(address: str, cache: Path, workers: int) -> Peer:
    """Return the same of LitData."""
    import litdata
    from litdata.streaming import downloader

    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # its fast path refuses servers on loopback otherwise

    class Clips(litdata.StreamingDataset):
        def __getitem__(self, index: Any) -> torch.Tensor:
            video = super().__getitem__(index)["video"]
            seed = index if isinstance(index, int) else index.index
            return PEER.turned(video[PEER.indices(len(video), seed)], seed)

    options = {
        "endpoint_url": address,
        "aws_access_key_id": AWS["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": AWS["AWS_SECRET_ACCESS_KEY"],
        "region_name": AWS["AWS_REGION"],
    }
    clips = Clips(f"s3://{BUCKET}/litdata", cache_dir=str(cache), shuffle=False, storage_options=options)
    loader = litdata.StreamingDataLoader(clips, batch_size=PEER.batch_size, num_workers=workers)
    return lambda: iter(loader)


def counts(peer: Peer) -> Epochs:
    """Yield the number of clips of each epoch of a peer."""
    while True:
        yield sum(len(batch) for batch in peer())


def run_contestant(
    name: str, folder: Path, address: str, cache: Path, workers: int, results: Any, is_checked: bool
) -> None:
    """Put the clips and seconds of two epochs, a verdict, and a problem into a queue. Runs in a process of its own."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of the DataLoaders, whose datasets are not pickled
    os.environ.update(AWS | {"AWS_ENDPOINT_URL": address})
    loose, root, verdict, problem = folder / "loose.parquet", f"s3://{BUCKET}", [""], ""
    peers: dict[str, Callable[[Path, int], Peer]] = {
        WEBDATASET: lambda _, workers: webdataset_peer(address, shards_of(folder), workers),
        LITDATA: lambda cache, workers: litdata_peer(address, cache, workers),
    }
    if name in peers:
        if is_checked:
            videos = peers[name](cache.with_name(f"{cache.name}, check"), 0)()  # without workers: in the order of rows
            problem = peer_problem(videos, cf.Manifest.read(loose), PEER, channels=1)
        epochs = counts(peers[name](cache, workers))
    elif name == FETCHING:
        epochs = fetch_epochs(cf.Manifest.read(loose, root=f"{root}/loose"), cache)
    else:
        with contextlib.closing(feed_epochs(cf.Manifest.read(loose), cache, 0, [""])) as local:
            next(local)
        if name in (PACKED, IN_ORDER):
            packed = cf.Manifest.read(folder / "packed", root=f"{root}/packed")
            epochs = feed_epochs(packed, cache, workers, verdict, in_order=name == IN_ORDER)
        else:
            remote_root = f"{root}/loose" if name == LOOSE else None
            epochs = feed_epochs(cf.Manifest.read(loose, root=remote_root), cache, workers, verdict)
    seconds, clips = [], []
    for _ in range(2):
        began = time.perf_counter()
        clips.append(next(epochs))
        seconds.append(time.perf_counter() - began)
    results.put((clips, seconds, verdict[0], problem))
    epochs.close()


def shards_of(folder: Path) -> list[str]:
    """Return the names of the packed shards."""
    return [path.relative_to(folder).as_posix() for path in sorted((folder / "packed").rglob("*.tar"))]


class Measured(NamedTuple):
    """Clips a second of both epochs of each run, verdicts of feeds, and problems of peers, by name."""

    rates: dict[str, list[list[float]]]
    verdicts: dict[str, str]
    problems: dict[str, str]


def measure(names: list[str], *, videos: int, latency_ms: float, workers: int, runs: int) -> Measured:
    """Serve the data, and run the contestants in turn."""
    problems = {
        name: f"{package} is not installed"
        for name, package in ((WEBDATASET, "webdataset"), (LITDATA, "litdata"))
        if name in names and find_spec(package) is None
    }
    result = Measured({name: [] for name in names if name not in problems}, {}, problems)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_data(folder / "data", videos, has_litdata=LITDATA in result.rates)
        context = multiprocessing.get_context("spawn")
        addresses = context.Queue()
        server = context.Process(target=serve, args=(folder / "data", latency_ms / 1e3, addresses), daemon=True)
        server.start()
        address = addresses.get(timeout=120)
        for run in range(runs):
            for name in random.Random(run).sample(list(result.rates), len(result.rates)):
                results, cache = context.Queue(), folder / f"cache {names.index(name)} {run}"
                arguments = (name, folder / "data", address, cache, workers, results, run == 0)
                process = context.Process(target=run_contestant, args=arguments)
                process.start()
                clips, seconds, verdict, problem = results.get(timeout=300)
                process.join()
                assert clips == [videos] * 2, (name, clips)
                result.rates[name].append([videos / each for each in seconds])
                if verdict:
                    result.verdicts[name] = verdict
                if problem:
                    problems[name] = problem
        server.kill()
        server.join()
    return result


def rows(*, quick: bool) -> Iterator[Row]:
    """Yield the rows of the benchmarks page: the first epoch, and the second."""
    videos, names = (
        (64, [PACKED, WEBDATASET]) if quick else (160, [PACKED, IN_ORDER, LOOSE, LOCAL, WEBDATASET, LITDATA])
    )
    measured = measure(names, videos=videos, latency_ms=20.0, workers=2, runs=1 if quick else 3)
    for epoch, what in enumerate(("first epoch, empty cache", "second epoch, from the cache")):
        yield Row(
            what=f"{videos} raw videos of 344 kB behind 20 ms, {what}",
            unit="clips/s",
            check="The clips of all videos of every peer were compared with cinefeed's frames and their neighbours.",
            contestants=contestants(
                {name: [run[epoch] for run in runs] for name, runs in measured.rates.items()},
                problems=measured.problems,
                bounds=[IN_ORDER, LOOSE, LOCAL],
            ),
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=240)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="", help="contestants whose names contain this text")
    options = vars(parser.parse_args())
    names = [LOCAL, LOOSE, PACKED, IN_ORDER, FETCHING, WEBDATASET, LITDATA]
    only = options.pop("only")
    rates, verdicts, problems = measure([name for name in names if only in name], **options)
    print(f"{options['videos']} videos, latency {options['latency_ms']:g} ms, {options['workers']} workers: clips/s")
    for name, runs in rates.items():
        first, second = ([round(run[epoch]) for run in runs] for epoch in range(2))
        print(
            f"{name:33} first epoch {statistics.median(first):4.0f} ({min(first)} to {max(first)}), "
            f"second {statistics.median(second):4.0f} ({min(second)} to {max(second)})"
        )
    for name, problem in problems.items():
        print(f"{name}: {problem}")
    for name, verdict in verdicts.items():
        print(f"{name}, after the first epoch: {verdict}")


if __name__ == "__main__":
    main()
