"""A seeded schedule of faults in the network changes no byte, and the cache keeps its bound."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from epoch_digests import epochs, make
from servers import Faults

import cinefeed as cf
from cinefeed.core.remote import files as remote_files
from cinefeed.core.remote import store
from cinefeed.packing.pack import pack
from cinefeed.packing.settings import PackSettings

RANK = """
import json, sys
from epoch_digests import epochs, make
import cinefeed as cf

manifest, root, cache, limit, rank, count, out = sys.argv[1:]
workers = cf.Workers(count=2, backend="process", cache=cache, cache_bytes=int(limit))
shard = cf.Shard(rank=int(rank), world_size=2)
feed = make(cf.Manifest.read(manifest, root=root), workers=workers, shard=shard)
digests = epochs(feed, int(count))
with open(out, "w") as file:
    json.dump({"digests": digests, "stats": feed.stats().as_dict()}, file)
feed.close()
"""


class SizeSampler(threading.Thread):
    """Records the largest size of the files in a cache until `stop`."""

    def __init__(self, folder: Path):
        super().__init__(daemon=True)
        self.folder, self.largest, self.samples = folder / "members", 0, 0
        self._ended = threading.Event()

    def run(self):
        while not self._ended.wait(0.005):
            self.largest, self.samples = max(self.largest, self._size()), self.samples + 1

    def stop(self) -> int:
        """Return the largest size."""
        self._ended.set()
        self.join()
        assert self.samples
        return self.largest

    def _size(self) -> int:
        size = 0
        for folder, _, names in os.walk(self.folder):  # which ignores folders that vanish
            for name in names:
                with suppress(FileNotFoundError):
                    size += Path(folder, name).stat().st_size if name != ".reserved" else 0
        return size


def total_bytes(manifest) -> int:
    """Return the size of all files."""
    return sum(manifest.column("size_bytes").to_pylist())


def test_a_scan_and_two_ranks_through_faults_give_the_same_bytes(
    bucket, behind_proxy, local, labels, tmp_path, monkeypatch
):
    monkeypatch.setattr(remote_files, "PAUSES", (0.01,) * 8)
    monkeypatch.setattr(store, "TIMEOUT_SECONDS", 0.5)
    faults = Faults(count=40, share=0.2, seed=1, stall=1.0)
    behind_proxy(bucket, faults=faults)
    manifest = cf.Manifest.scan("s3://clips", labels=labels, progress=False)
    same = [name for name in local.table.schema.names if name != "mtime_ns"]
    assert manifest.table.select(same).equals(local.table.select(same))
    limit = total_bytes(local) // 4
    sampler = SizeSampler(tmp_path / "cache")
    sampler.start()
    workers = cf.Workers(count=2, cache=tmp_path / "cache", cache_bytes=limit)
    shards = [cf.Shard(rank=rank, world_size=2) for rank in range(2)]
    feeds = [make(manifest, workers=workers, shard=shard) for shard in shards]
    with ThreadPoolExecutor(2) as ranks:
        digests = list(ranks.map(epochs, feeds))
    for feed in feeds:
        feed.close()
    assert digests == [epochs(make(local, shard=shard)) for shard in shards]
    assert faults.total == 40
    assert sum(feed.stats().refetches for feed in feeds) > 0
    assert sampler.stop() <= limit


@pytest.fixture
def written_local(local, tmp_path) -> Path:
    local.write(tmp_path / "m.parquet")
    return tmp_path / "m.parquet"


def lru_hits(draws, sizes, limit):
    """Return the hits of a cache that evicts what was used least recently."""
    cache, hits = {}, 0
    for row in draws:
        if row in cache:
            hits += 1
            del cache[row]
        else:
            while sum(cache.values()) + sizes[row] > limit:
                del cache[next(iter(cache))]
        cache[row] = sizes[row]
    return hits


def test_the_plan_keeps_more_than_the_least_recently_used(s3, written_local, tmp_path):
    manifest = cf.Manifest.read(written_local, root=s3)
    limit = total_bytes(manifest) // 2
    feed = make(manifest, workers=cf.Workers(count=1, cache=tmp_path / "cache", cache_bytes=limit))
    draws = [row for epoch in range(4) for row in feed.plan(epoch=epoch).rows.tolist()]
    epochs(feed, 4)
    feed.close()
    hits = lru_hits(draws, manifest.column("size_bytes").to_pylist(), limit)
    print(feed.stats().cache_hits, feed.stats().cache_misses, "lru", hits, "of", len(draws))
    assert feed.stats().cache_hits > hits


@pytest.mark.slow
def test_a_thousand_faults_two_ranks_of_two_processes_and_a_cache_of_a_tenth(
    bucket, behind_proxy, local, labels, written_local, tmp_path
):
    count = 80
    faults = Faults(count=1000, share=0.2, seed=2, stall=0.3)
    behind_proxy(bucket, faults=faults)
    scanned = cf.Manifest.scan("s3://clips", labels=labels, progress=False)
    same = [name for name in local.table.schema.names if name != "mtime_ns"]
    assert scanned.table.select(same).equals(local.table.select(same))
    for manifest, out in ((local, "packed"), (scanned, "packed remote")):
        pack(manifest, out=tmp_path / out, settings=PackSettings(codec="raw"), workers=2, progress=False)
    for shard in sorted((tmp_path / "packed").rglob("*.tar")):
        other = tmp_path / "packed remote" / shard.relative_to(tmp_path / "packed")
        assert other.read_bytes() == shard.read_bytes()
    limit = total_bytes(local) // 10
    sampler = SizeSampler(tmp_path / "cache")
    sampler.start()
    outs = [tmp_path / f"{rank}.json" for rank in range(2)]
    arguments = [str(each) for each in (written_local, "s3://clips", tmp_path / "cache", limit)]
    path = str(Path(__file__).parents[1] / "feed")
    ranks = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import sys; sys.path.append({path!r})\n{RANK}",
                *arguments,
                f"{rank}",
                f"{count}",
                out,
            ]
        )
        for rank, out in enumerate(outs)
    ]
    assert [rank.wait(timeout=500) for rank in ranks] == [0, 0]
    results = [json.loads(out.read_text()) for out in outs]
    for rank, result in enumerate(results):
        shard = cf.Shard(rank=rank, world_size=2)
        assert result["digests"] == epochs(make(local, shard=shard), count)
    assert faults.total == 1000
    assert sampler.stop() <= limit
