"""The cache of remote files: its bound, what it evicts, and what killed processes leave."""

import math
import os
import random
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from servers import file_server

from cinefeed.core.errors import SettingError
from cinefeed.core.remote.address import RemoteRoot
from cinefeed.core.remote.cache import Cache
from cinefeed.core.remote.files import Member, RemoteFiles

KEYS = [f"{number:032x}" for number in range(8)]


@contextmanager
def closing_hold(hold):
    """Release a hold at the end."""
    yield
    hold.release()


def never(keys):
    """Return that no member is needed again."""
    return [math.inf] * len(keys)


def add(cache, key, size, *, next_uses=never):
    """Put a member into the cache; return its hold, None if there is no room."""
    partial = cache.begin(key)
    if not partial.reserve(size, next_uses=next_uses):
        partial.abandon()
        return None
    (partial.folder / "file").write_bytes(bytes(size))
    return partial.complete()


def keys_in(cache):
    """Return the keys of the members."""
    return {path.name for path in cache.members.iterdir()}


def used(cache):
    """Return the bytes in use, as the cache counts them."""
    with cache.locked() as space:
        return space.used


def test_a_member_that_is_held_stays(tmp_path):
    cache = Cache(tmp_path, 100)
    first, second = add(cache, KEYS[0], 40), add(cache, KEYS[1], 40)
    assert add(cache, KEYS[2], 40) is None
    second.release()
    other = Cache(tmp_path, 100)  # as of another process: locks are of open files
    assert other.hold(KEYS[0]) is not None
    assert add(other, KEYS[2], 40) is not None
    assert keys_in(cache) == {KEYS[0], KEYS[2]}
    assert first.path.exists()
    assert used(cache) == 80


def test_what_is_needed_last_goes_first_then_what_was_used_longest_ago(tmp_path):
    cache = Cache(tmp_path, 100)
    uses = dict(zip(KEYS, [3.0, 9.0, 1.0, math.inf, math.inf], strict=False))
    for number in range(5):
        add(cache, KEYS[number], 20).release()
        os.utime(cache.members / KEYS[number], (100 - number, 100 - number))
    order = []
    for number in range(5, 8):
        before = keys_in(cache)
        assert add(cache, KEYS[number], 20, next_uses=lambda keys: [uses.get(key, 0.0) for key in keys]) is not None
        order += before - keys_in(cache)
    assert order == [KEYS[4], KEYS[3], KEYS[1]]
    assert used(cache) == 100


def test_a_member_is_fetched_by_one_process(tmp_path):
    cache, other = Cache(tmp_path, 100), Cache(tmp_path, 100)
    partial = cache.begin(KEYS[0])
    assert other.begin(KEYS[0]) is None
    assert other.hold(KEYS[0]) is None
    partial.abandon()
    assert add(other, KEYS[0], 10) is not None
    assert cache.begin(KEYS[0]) is None  # complete


def test_what_a_killed_process_left_is_removed(tmp_path):
    script = f"""
import time
from pathlib import Path
from cinefeed.core.remote.cache import Cache
from cinefeed.core.remote.files import Member, RemoteFiles
cache = Cache(Path({str(tmp_path)!r}), 100)
user = cache.register({{"plan": "p", "rank": 0}})
partial = cache.begin({KEYS[0]!r})
assert partial.reserve(90, next_uses=lambda keys: [])
(partial.folder / "file").write_bytes(bytes(7))
print("ready", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        cache = Cache(tmp_path, 100)
        assert [each["plan"] for each in cache.registered()] == ["p"]
        cache.recount()
        assert used(cache) == 90  # it is still being fetched
        process.send_signal(signal.SIGKILL)
    assert cache.registered() == []
    cache.recount()
    assert used(cache) == 0
    assert keys_in(cache) == set()


def test_a_folder_that_cannot_be_used_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match=r"the cache .*file cannot be used.*Workers\(cache=...\)"):
        Cache(tmp_path / "file", 100)


def test_a_large_file_is_fetched_in_pieces_and_a_part_of_it_by_one_range(tmp_path):
    content = random.Random(3).randbytes(9_000_001)
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "large.bin").write_bytes(content)
    with file_server(tmp_path / "web") as address:
        files = RemoteFiles(RemoteRoot(address), folder=tmp_path / "cache", limit=10_000_000)
        whole = Member("large.bin", size=len(content))
        with closing_hold(files.hold(whole)):
            assert files.local_path(whole).read_bytes() == content
        assert files.take_counters() == {"requests": 3, "fetched_bytes": len(content)}
        part = Member("large.bin", offset=4_100_000, length=77, size=77)
        with closing_hold(files.hold(part)):
            assert files.local_path(part).read_bytes() == content[4_100_000:4_100_077]
        assert files.take_counters() == {"requests": 1, "fetched_bytes": 77}
        small = RemoteFiles(RemoteRoot(address), folder=tmp_path / "cache", limit=1_000_000)
        with pytest.raises(SettingError, match=r"large.bin of 9 MB is larger: the cache .* has 1 MB; give more with"):
            small.hold(Member("large.bin", size=len(content), tag=-5))
