"""Feeds of remote manifests: batches are those of local files, whatever the network does."""

from pathlib import Path

import pytest
from epoch_digests import digest, epochs, make
from servers import Faults, file_server

import cinefeed as cf
from cinefeed.core.errors import FetchError
from cinefeed.core.remote import files as remote_files
from cinefeed.packing.pack import pack
from cinefeed.packing.settings import PackSettings

KINDS = [cf.Workers(count=0), cf.Workers(count=2), cf.Workers(count=2, backend="process")]


def with_cache(workers, folder, limit="50MB"):
    """Return settings of workers with a cache."""
    return cf.Workers(count=workers.count, backend=workers.backend, cache=folder, cache_bytes=limit)


@pytest.fixture(scope="module")
def expected(local):
    """The digests of two epochs of local files."""
    return epochs(make(local, workers=2))


@pytest.fixture
def written(local, tmp_path) -> Path:
    """The manifest of the local files, written."""
    local.write(tmp_path / "m.parquet")
    return tmp_path / "m.parquet"


@pytest.mark.parametrize("workers", KINDS, ids=["none", "threads", "processes"])
def test_batches_are_those_of_local_files(s3, written, expected, tmp_path, workers):
    manifest = cf.Manifest.read(written, root=s3)
    feed = make(manifest, workers=with_cache(workers, tmp_path / "cache"))
    assert epochs(feed) == expected
    stats = feed.stats()
    assert stats.cache_misses == len(manifest)  # each file is fetched once, the second epoch is in the cache
    assert stats.requests >= len(manifest)
    assert stats.fetched_bytes == sum(manifest.column("size_bytes").to_pylist())
    assert 0.4 < stats.hit_rate <= 0.6
    feed.close()


def test_a_web_server_without_a_scan(web, videos, labels, expected, tmp_path):
    table = labels.append_column("path", [sorted(str(p.relative_to(videos)) for p in [*videos.rglob("v*")])])
    files = [path for path in table["path"].to_pylist() if Path(path).suffix]
    rows = table.filter([path in files for path in table["path"].to_pylist()])
    manifest = cf.Manifest.from_table(rows, root=web)
    local = cf.Manifest.from_table(rows, root=videos)
    feed = make(manifest, workers=with_cache(KINDS[1], tmp_path / "cache", limit="200kB"))
    assert epochs(feed, 1) == epochs(make(local), 1)
    feed.close()


def test_shards_are_read_by_ranges(local, expected, behind_proxy, tmp_path):
    packed = pack(local, out=tmp_path / "packed", settings=PackSettings(codec="raw"), workers=0, progress=False)
    assert packed.rows == len(local)
    members = cf.Manifest.read(tmp_path / "packed")
    with file_server(tmp_path / "packed") as address:
        manifest = cf.Manifest.read(tmp_path / "packed", root=behind_proxy(address))
        feed = make(manifest, workers=with_cache(KINDS[1], tmp_path / "cache"))
        assert epochs(feed) == epochs(make(members))
        feed.close()
    stats = feed.stats()
    assert stats.requests <= len(members) and stats.refetches == 0  # neighbours share a request
    shards = sum(path.stat().st_size for path in (tmp_path / "packed").rglob("*.tar"))
    assert sum(members.column("member_bytes").to_pylist()) <= stats.fetched_bytes <= shards


def test_packing_remote_videos_gives_the_same_shards(s3, written, local, tmp_path):
    settings = PackSettings(codec="raw")
    for manifest, out in ((local, "local"), (cf.Manifest.read(written, root=s3), "remote")):
        pack(manifest, out=tmp_path / out, settings=settings, workers=0, progress=False)
    shards = sorted(path.relative_to(tmp_path / "local") for path in (tmp_path / "local").rglob("*.tar"))
    assert shards
    for name in shards:
        assert (tmp_path / "remote" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


def test_an_outage_is_an_error_and_the_feed_goes_on_after_it(
    bucket, written, expected, behind_proxy, tmp_path, monkeypatch
):
    monkeypatch.setattr(remote_files, "PAUSES", (0.01,) * 3)
    workers = cf.Workers(count=1, cache=tmp_path / "cache", cache_bytes="150kB")

    def feed_of(faults):
        behind_proxy(bucket, faults=faults)
        manifest = cf.Manifest.read(written, root="s3://clips")
        return make(manifest, workers=workers, on_error="replace", max_bad=1.0)

    feed = feed_of(None)
    digests = [digest(batch) for _, batch in zip(range(2), feed, strict=False)]
    state = feed.state()
    feed.close()
    feed = feed_of(Faults(count=10**9, share=1.0, kinds=("503",)))
    feed.restore(state)
    with pytest.raises(FetchError, match=r"s3://clips/.* could not be fetched 4 times: .*503") as caught:
        list(feed)
    assert "top-secret" not in str(caught.value)
    assert feed.stats().skipped == ()  # the network must not change what a batch holds
    feed = feed_of(None)
    feed.restore(state)
    assert [digests + epochs(feed, 1)[0], *epochs(feed, 1)] == expected
    feed.close()


def test_an_absent_file_is_an_error_of_its_row_from_a_worker_process(web, videos, tmp_path):
    table = {"path": ["p0/v00.npy", "p1/absent.npy"], "number": [1.0, 2.0]}
    manifest = cf.Manifest.from_table(table, root=web)
    feed = make(manifest, workers=with_cache(KINDS[2], tmp_path / "cache"), on_error="replace", max_bad=1.0)
    with pytest.raises(FetchError, match=r"p1/absent.npy could not be fetched: .*NotFound"):
        list(feed)
    feed.close()
