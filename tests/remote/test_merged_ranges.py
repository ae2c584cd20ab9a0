"""Ranges that are wanted at the same time are read together, and each has the bytes of its own request."""

import asyncio

import pytest

from cinefeed.core.remote.ranges import MergedRanges
from cinefeed.core.remote.store import RemoteFile

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes


def read_all(spans, *, limit=300_000, failures=0, cancelled=()):
    """Return the bytes of each range, None if its task was cancelled, and the ranges that were requested."""
    requested = []

    async def read(path, span):
        requested.append(span)
        await asyncio.sleep(0.01)
        if len(requested) <= failures:
            raise ConnectionError("cut")
        return RemoteFile(path, len(CONTENT), "x"), CONTENT[slice(*span)]

    async def request(path, once):
        for _ in range(3):
            try:
                async with slots:
                    return await once()
            except ConnectionError as error:
                last = error
        raise last

    async def run():
        ranges = MergedRanges(read, request=request, limit=limit)
        tasks = [asyncio.ensure_future(ranges.read("a.tar", span)) for span in spans]
        await asyncio.sleep(0.007)  # in the first request
        for place in cancelled:
            tasks[place].cancel()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)

    slots = asyncio.Semaphore(1)
    results = asyncio.run(run())
    for result in results:
        if isinstance(result, Exception):
            raise result
    return [None if isinstance(each, BaseException) else bytes(each[1]) for each in results], requested


def test_neighbours_share_a_request_up_to_the_limit():
    spans = [(512, 100_000), (300_000, 400_000), (100_512, 200_000), (200_512, 299_000), (400_100, 400_200)]
    contents, requested = read_all(spans)
    assert contents == [CONTENT[slice(*span)] for span in spans]
    assert requested == [(512, 299_000), (300_000, 400_200)]


def test_what_is_far_away_or_large_has_a_request_of_its_own():
    spans = [(0, 1000), (100_000, 101_000), (150_000, 500_000), (500_000, 500_001)]
    contents, requested = read_all(spans)
    assert contents == [CONTENT[slice(*span)] for span in spans]
    assert sorted(requested) == [(0, 1000), (100_000, 101_000), (150_000, 500_000), (500_000, 500_001)]


def test_the_same_range_twice():
    contents, requested = read_all([(5, 10), (5, 10)])
    assert contents == [CONTENT[5:10]] * 2 and requested == [(5, 10)]


@pytest.mark.parametrize("failures", [1, 2, 4, 99])
def test_a_request_that_fails_is_repeated(failures):
    spans = [(0, 10), (10, 20), (20, 30)]
    if failures < 99:
        contents, requested = read_all(spans, failures=failures)
        assert contents == [CONTENT[slice(*span)] for span in spans] and requested[0] == (0, 30)
    else:
        with pytest.raises(ConnectionError):
            read_all(spans, failures=failures)


@pytest.mark.parametrize("cancelled", [(0,), (1,), (0, 2), (0, 1, 2)])
def test_a_cancelled_task_leaves_its_neighbours_their_bytes(cancelled):
    spans = [(0, 10), (10, 20), (20, 30)]
    contents, _ = read_all(spans, cancelled=cancelled)
    assert contents == [None if place in cancelled else CONTENT[slice(*span)] for place, span in enumerate(spans)]
