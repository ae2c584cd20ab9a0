"""Ranges of bytes that are wanted at the same time: neighbours in one file are read by one request.

An evaluation, or any other order that is that of the shards, reads neighbouring members of packed shards. A request
costs milliseconds of a server and of this process, whatever its size: twelve members of 344 kB cost those of one.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

from cinefeed.core.remote.store import RemoteFile

Span = tuple[int, int]
Reply = tuple[RemoteFile, Any]
_Waiting = tuple[Span, "asyncio.Future[Reply | None]"]

_GAP_BYTES = 65_536  # at most, between neighbours; read and dropped: headers of the shards
_GATHER_SECONDS = 0.002  # that a range waits for its neighbours


class MergedRanges:
    """Reads ranges of files by requests of at most `limit` bytes, unless a single range is longer.

    `read` reads one range by one request; `request` runs such a request in its turn, and repeats it after an error of
    the network. All calls are made in one event loop.
    """

    def __init__(
        self,
        read: Callable[[str, Span], Coroutine[Any, Any, Reply]],
        *,
        request: Callable[[str, Callable[[], Coroutine[Any, Any, None]]], Coroutine[Any, Any, None]],
        limit: int,
    ) -> None:
        self._read, self._request, self._limit = read, request, limit
        self._waiting: defaultdict[str, list[_Waiting]] = defaultdict(list)

    async def read(self, path: str, span: Span) -> Reply:
        """Return size and tag of a file, and the bytes of a range of it; raises the error of its request."""
        waiting = self._waiting[path]
        while True:
            own: _Waiting = (span, asyncio.get_running_loop().create_future())
            waiting.append(own)
            group: list[_Waiting] = []

            async def read_group(own: _Waiting = own, group: list[_Waiting] = group) -> None:
                if own in waiting:  # else it is in the request of a neighbour
                    group[:] = self._group(waiting, own)
                    await self._read_group(path, group)

            try:
                await asyncio.sleep(_GATHER_SECONDS)
                await self._request(path, read_group)
                reply = await own[1]
            finally:
                for each in {own, *group}.intersection(waiting):  # the request failed: neighbours make their own
                    waiting.remove(each)
                    if not each[1].done():
                        each[1].set_result(None)
            if reply is not None:
                return reply

    def _group(self, waiting: list[_Waiting], own: _Waiting) -> list[_Waiting]:
        """Return the ranges around one that a request reads with it, in order."""
        ranges = sorted(waiting, key=lambda each: each[0])
        first = last = ranges.index(own)
        (begin, end), limit = own[0], self._limit
        while last + 1 < len(ranges):
            (start, stop), _ = ranges[last + 1]
            if start - end > _GAP_BYTES or max(stop, end) - begin > limit:
                break
            last, end = last + 1, max(stop, end)
        while first > 0:
            (start, stop), _ = ranges[first - 1]
            if begin - stop > _GAP_BYTES or end - start > limit:
                break
            first, begin = first - 1, start
        return ranges[first : last + 1]

    async def _read_group(self, path: str, group: list[_Waiting]) -> None:
        waiting = self._waiting[path]
        for each in group:
            waiting.remove(each)
        begin, end = group[0][0][0], max(stop for (_, stop), _ in group)
        try:
            about, content = await self._read(path, (begin, end))
        except BaseException:
            waiting.extend(group)  # for the next try
            raise
        view = memoryview(content)
        for (start, stop), future in group:
            if not future.done():  # its task was cancelled
                future.set_result((about, view[start - begin : stop - begin]))
