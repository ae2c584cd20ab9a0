"""Remote files as local ones: fetched once into the cache, whole, with retries, and verified."""

import asyncio
import hashlib
import logging
import math
import os
import random
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cinefeed.core.errors import ChangedFileError, FeedError, FetchError, SettingError
from cinefeed.core.files import DISK_FULL
from cinefeed.core.remote.address import RemoteRoot, without_secrets
from cinefeed.core.remote.cache import Cache, Hold, NextUses, Partial, cache_settings
from cinefeed.core.remote.ranges import MergedRanges
from cinefeed.core.remote.store import METADATA_SERVICE, RemoteFile, Store, is_permanent, open_store
from cinefeed.core.text import format_bytes

_log = logging.getLogger(__name__)
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)  # seconds before a failed request is repeated, on average
_LOGGED_PAUSE = 3.0  # seconds
_CHANGE_PAUSES = (0.1,) * 6  # before a file whose tag differs is fetched again: a proxy may be at fault
_PIECE_BYTES = 4_000_000  # of a larger file, requested separately
_REQUESTS = 32  # at the same time
_POLL_SECONDS = 0.01  # between two looks at a member that another process fetches, or at a full cache
_FULL_SECONDS = 60.0  # that a fetch waits for space that others hold

_jitter = random.Random()  # not the global generator, whose numbers a program may depend on

T = TypeVar("T")


class Member(NamedTuple):
    """What is fetched as one: a file, the files of a folder, or `length` bytes of a file from `offset` on.

    `size` is the sum of all bytes, `tag` identifies the version, see `combined_tag`; None if unknown.
    """

    path: str  # relative to the root
    files: tuple[str, ...] = ()  # within the folder `path`
    offset: int = 0
    length: int | None = None
    size: int | None = None
    tag: int | None = None
    content_hash: str | None = None

    @property
    def paths(self) -> list[str]:
        """The paths of its files relative to the root."""
        return [f"{self.path}/{name}".removeprefix("./") for name in self.files] or [self.path]


def combined_tag(files: Iterable[RemoteFile]) -> int | None:
    """Return a negative number that changes with the sizes and tags of files, in this order; None without tags.

    It is negative, so that it differs from a modification time in the same column of a manifest.

    >>> combined_tag([RemoteFile("a", 5, "x")]) == combined_tag([RemoteFile("b", 5, "x")]) < 0
    True
    >>> combined_tag([RemoteFile("a", 5, "")])
    """
    versions = [(file.size, file.tag) for file in files]
    if not all(tag for _, tag in versions):
        return None
    return -1 - (int.from_bytes(hashlib.blake2b(repr(versions).encode(), digest_size=8).digest()) >> 1)


class RemoteFiles:
    """The files below a remote root. `hold` may be called by any thread; requests are made by one thread of its own.

    `counters` has the sums of `requests`, `fetched_bytes` and `refetches` (requests that were repeated).
    `content_hash` is the function that a scan used for the hash of a file's content.
    """

    def __init__(
        self,
        root: RemoteRoot,
        *,
        folder: Path | None = None,
        limit: int | None = None,
        content_hash: Callable[[list[str]], str] | None = None,
    ) -> None:
        self.root = root
        self._cache_settings = cache_settings(folder, limit)
        self.next_uses: NextUses = lambda keys: [math.inf] * len(keys)
        self._content_hash = content_hash
        self._counters: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._versions: dict[str, RemoteFile] = {}  # of files that were not scanned, as this process first saw them
        self._holding: set[asyncio.Task[Any]] = set()  # what waits in `hold_async`
        self._running: dict[str, asyncio.Task[Hold]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._store: Store | None = None
        self._requests = asyncio.Semaphore(_REQUESTS)
        self._ranges = MergedRanges(self._read_once, request=self._uncounted_request, limit=_PIECE_BYTES)

    @cached_property
    def cache(self) -> Cache:
        """The cache, whose folder is made when it is first used."""
        return Cache(*self._cache_settings)

    def local_path(self, member: Member) -> Path:
        """Return the path of a member in the cache, where it is while it is held."""
        folder = self.cache.members / self.key(member)
        return folder if member.files else folder / Path(member.path).name

    def key(self, member: Member) -> str:
        """Return the name of a member in the cache, which changes with its address and version."""
        version: object = self._versions.get(member.path) if member.size is None else None
        if member.tag is not None and member.tag < 0:  # a scan has no hash of the content yet
            member = member._replace(content_hash=None)
        return hashlib.blake2b(repr((self.root.address, member, version)).encode(), digest_size=16).hexdigest()

    def size(self, member: Member) -> int:
        """Return the bytes of a member; 0 if they are not known yet."""
        version = self._versions.get(member.path)
        return version.size if member.size is None and version is not None else member.size or 0

    def is_present(self, member: Member) -> bool:
        """Return whether a member is in the cache now."""
        return self.local_path(member).exists()

    def hold(self, member: Member) -> Hold:
        """Return a member, fetched if it is not in the cache; `local_path` exists until the result is released.

        Raises FetchError if that fails repeatedly, ChangedFileError if a file differs from the scanned one.
        """
        if member.size is not None or member.path in self._versions:
            hold = self.cache.hold(self.key(member))
            if hold is not None:
                return hold
        return self.start(member).result()[0]

    def start(self, member: Member) -> "Future[tuple[Hold, bool]]":
        """Begin to fetch a member, and return its hold, and whether it was in the cache, as a future."""
        return self._submit(lambda: self.hold_async(member))

    def read_starts(self, paths: Sequence[str], count: int) -> list[bytes]:
        """Return the first `count` bytes of files. Raises FetchError."""

        async def read(path: str) -> bytes:
            return bytes((await self._request(path, lambda: self.store.read(path, (0, count))))[1])

        async def read_all() -> list[bytes]:
            return await asyncio.gather(*map(read, paths))

        return self._submit(read_all).result()

    def _submit(self, work: Callable[[], Coroutine[Any, Any, T]]) -> "Future[T]":
        """Run a coroutine in the thread of the requests."""
        loop = self.loop  # before the coroutine is made, because an extra may be missing
        return asyncio.run_coroutine_threadsafe(work(), loop)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that makes the requests; its thread starts with the first use."""
        if self._pid != os.getpid():
            raise FeedError(
                "this process is a fork of one that has read remote data, and its connections cannot be used here; "
                "start processes with the method 'spawn', or open the manifest in this process"
            )
        with self._lock:
            if self._loop is None:
                self._store = open_store(self.root)
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_serve, args=(self._loop,), name="cinefeed-remote", daemon=True).start()
                weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)
            return self._loop

    @property
    def store(self) -> Store:
        """The requests of the root's scheme."""
        assert self.loop is not None
        assert self._store is not None
        return self._store

    def list(self) -> list[RemoteFile]:
        """Return all files below the root. Raises FetchError."""

        async def list_all() -> list[RemoteFile]:
            return await self._request("", lambda: asyncio.to_thread(lambda: list(self.store.list())))

        return self._submit(list_all).result()

    def cancel(self) -> None:
        """End all fetches; threads that wait for one get an error."""
        if self._loop is not None and self._pid == os.getpid():
            self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._holding])

    def take_counters(self) -> dict[str, int]:
        """Return the counters since the previous call."""
        with self._lock:
            counters, self._counters = self._counters, Counter()
        return dict(counters)

    async def hold_async(self, member: Member) -> tuple[Hold, bool]:
        """Return a member, and whether it was in the cache; see `hold`. Runs in the thread of the requests."""
        current = asyncio.current_task()
        assert current is not None
        self._holding.add(current)
        current.add_done_callback(self._holding.discard)
        if member.size is None and member.path not in self._versions:
            self._versions[member.path] = await self._request(member.path, lambda: self.store.head(member.path))
        key = self.key(member)
        is_present = True
        while (hold := self.cache.hold(key)) is None:
            is_present = False
            task = self._running.get(key)
            if task is not None:  # another thread fetches it
                await asyncio.wait([task])
                if task.cancelled() or task.exception() is not None:
                    task.result()
                continue
            task = self._running[key] = asyncio.ensure_future(self._fetch(member, key))
            try:
                return await task, False
            finally:
                del self._running[key], task
        return hold, is_present

    async def _fetch(self, member: Member, key: str) -> Hold:
        """Fetch a member, unless another process does so at the same time."""
        size = self.size(member)
        while True:
            partial = self.cache.begin(key)
            if partial is not None:
                break
            if (hold := self.cache.hold(key)) is not None:
                return hold
            await asyncio.sleep(_POLL_SECONDS)
        try:
            await self._reserve(partial, size, member)
            for pause in (*_CHANGE_PAUSES, None):
                change = await self._fetch_once(member, partial.folder, size)
                if change is None:
                    return partial.complete()
                if pause is not None:
                    await asyncio.sleep(pause)
            raise ChangedFileError(f"{self.root.join(member.path)}: {change}; run 'cinefeed scan' again")
        except BaseException as error:
            partial.abandon()
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise SettingError(
                    f"the disk of the cache {self.cache.folder} is full ({error.strerror}); make room, or give a "
                    "smaller cache_bytes"
                ) from error
            raise

    async def _reserve(self, partial: Partial, size: int, member: Member) -> None:
        """Wait until the cache has space. Raises SettingError if the member is too large for it."""
        limit, waited = self.cache.limit, 0.0
        while size > limit or not partial.reserve(size, next_uses=self.next_uses):
            if size > limit or waited > _FULL_SECONDS:
                what = (
                    "is larger"
                    if size > limit
                    else f"does not fit beside files that have been in use for {waited:.0f} s"
                )
                raise SettingError(
                    f"{self.root.join(member.path)} of {format_bytes(size)} {what}: the cache {self.cache.folder} has "
                    f"{format_bytes(limit)}; give more with Workers(cache_bytes=...)"
                )
            await asyncio.sleep(_POLL_SECONDS)
            waited += _POLL_SECONDS

    async def _fetch_once(self, member: Member, folder: Path, size: int) -> str | None:
        """Fetch all files of a member; return how they differ from the scanned ones, None if they do not."""
        targets = [folder / name for name in member.files] or [folder / Path(member.path).name]
        if not all(target.resolve().is_relative_to(folder.resolve()) for target in targets):
            raise SettingError(f"{self.root.join(member.path)} has a file outside its folder; correct the manifest")
        span = None if member.length is None else (member.offset, member.offset + member.length)
        expected = size if len(targets) == 1 and span is None else None  # of the whole file
        work = [
            asyncio.ensure_future(self._fetch_file(path, target, span=span, size=expected))
            for path, target in zip(member.paths, targets, strict=True)
        ]
        try:
            files = await asyncio.gather(*work)
        except _SizeError as error:
            return str(error)
        finally:
            for each in work:
                each.cancel()
        if span is None:
            whole = sum(file.size for file in files)
            if whole != size:
                return f"{size:,} bytes when scanned, {whole:,} now"
            tag = combined_tag(files)
            if member.tag is not None and member.tag < 0 and tag is not None:
                return None if member.tag == tag else f"another ETag than in the scan, with the same {size:,} bytes"
        if member.content_hash is not None and self._content_hash is not None:
            content_hash = self._content_hash([str(target) for target in targets])
            if content_hash != member.content_hash:
                return f"other content than in the scan, with the same size of {size:,} bytes"
        return None

    async def _fetch_file(
        self, path: str, target: Path, *, span: tuple[int, int] | None, size: int | None
    ) -> RemoteFile:
        """Fetch a file, or a span of one, in pieces if it is large. Raises _SizeError if it does not have `size`."""
        target.parent.mkdir(parents=True, exist_ok=True)
        first, last = span or (0, size or 0)
        starts = range(first, last, _PIECE_BYTES) if last - first > _PIECE_BYTES else range(first, first + 1)
        whole = span is None and len(starts) == 1
        with open(target, "wb") as file:  # noqa: PTH123

            async def fetch(start: int) -> RemoteFile:
                piece = None if whole else (start, min(start + _PIECE_BYTES, last))
                about, data = await self._read(path, piece)
                if size is not None and about.size != size:
                    raise _SizeError(f"{size:,} bytes when scanned, {about.size:,} now")
                os.pwrite(file.fileno(), data, start - first)
                return about

            pieces = [asyncio.ensure_future(fetch(start)) for start in starts]
            try:
                versions = await asyncio.gather(*pieces)
            finally:
                for each in pieces:
                    each.cancel()
                await asyncio.wait(pieces)  # none may write after the file is closed
        if len(set(versions)) > 1:
            raise _SizeError("it changed while it was fetched")
        return versions[0]

    async def _read(self, path: str, span: tuple[int, int] | None) -> tuple[RemoteFile, Any]:
        if span is None:
            return await self._uncounted_request(path, lambda: self._read_once(path, None))
        return await self._ranges.read(path, span)

    async def _read_once(self, path: str, span: tuple[int, int] | None) -> tuple[RemoteFile, Any]:
        with self._lock:
            self._counters["requests"] += 1
        about, data = await self.store.read(path, span)
        expected = about.size if span is None else span[1] - span[0]
        if len(data) != expected:
            raise ConnectionError(f"{len(data):,} of {expected:,} bytes arrived")
        with self._lock:
            self._counters["fetched_bytes"] += len(data)
        return about, data

    async def _request(self, path: str, request: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async def counted() -> T:
            with self._lock:
                self._counters["requests"] += 1
            return await request()

        return await self._uncounted_request(path, counted)

    async def _uncounted_request(self, path: str, request: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the result of a request, which is repeated after an error of the network or the server."""
        for pause in (*PAUSES, None):
            try:
                async with self._requests:
                    return await request()
            except Exception as error:
                reason = without_secrets(str(error).partition("\n")[0])
                address = self.root.join(path) if path else str(self.root)
                if pause is None or is_permanent(error):
                    times = "" if is_permanent(error) else f" {len(PAUSES) + 1} times"
                    hint = ", of which none are in the environment" if METADATA_SERVICE in reason else ""
                    raise FetchError(
                        f"{address} could not be fetched{times}: {type(error).__name__}: {reason}; check the address, "
                        f"the network and the credentials{hint} (docs/remote.md), then run the same again"
                    ) from None
                if pause >= _LOGGED_PAUSE:
                    _log.warning("%s: %s; trying again in %.0f s", address, reason, pause)
            with self._lock:
                self._counters["refetches"] += 1
            await asyncio.sleep(pause * _jitter.uniform(0.5, 1.5))
        raise AssertionError("unreachable")


class _SizeError(Exception):
    """A file has another size than in the scan."""


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop until it is stopped, then cancel what is in progress, so that nothing partial stays in the cache."""
    asyncio.set_event_loop(loop)
    loop.run_forever()
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()
