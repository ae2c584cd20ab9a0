"""The cache of a worker for the metadata of each row."""

import cinefeed as cf
from cinefeed.data.manifest import rows as module


def test_facts_are_kept_and_never_mixed_up(manifest, monkeypatch):
    monkeypatch.setattr(module, "_CACHE_SIZE", 3)
    rows = cf.Manifest.scan(manifest.root).rows
    again, latest = {}, {}
    for _ in range(3):
        for row in range(len(rows)):
            metadata = rows.metadata(row)
            with rows.open(row) as source:
                assert source.read([2])[0, 0, 0, 0] == 20 * row + 2 and source.metadata is metadata
            again.setdefault(row, metadata)
            latest[row] = metadata
            assert metadata.times.count == again[row].times.count == 12
            assert rows.metadata(row) is metadata, "cached for the next clip"
    assert sum(rows.metadata(row) is latest[row] for row in reversed(range(len(rows)))) <= 3, "the others were dropped"
