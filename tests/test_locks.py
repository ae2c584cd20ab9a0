"""Locks between real processes: a holder that ends in any way leaves nothing that blocks."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from cinefeed.core import locks
from cinefeed.core.errors import InUseError
from cinefeed.core.locks import with_write_lock, write_lock

HOLD = """
import errno, os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from cinefeed.core import locks
if {without}:
    def none(*args):
        raise OSError(errno.ENOLCK, "no locks available")
    locks.fcntl.flock = none
with locks.write_lock({path!r}, folder={folder}):
    {inside}
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(path, *, folder=False, without=False, inside="pass"):
    """Another process that holds the lock, for at most a minute."""
    script = HOLD.format(path=str(path), folder=folder, without=without, inside=inside)
    command = [sys.executable, "-c", script, "scan", "some folder"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.fixture(params=[False, True], ids=["system locks", "a share without locks"])
def without(request, monkeypatch):
    """Whether the file system is one that has no locks, as some network shares are."""
    if request.param:

        def none(*args):
            raise OSError(errno.ENOLCK, "no locks available")

        monkeypatch.setattr(locks.fcntl, "flock", none)
    return request.param


@pytest.mark.parametrize("folder", [False, True])
def test_the_second_process_is_refused_with_who_holds_it_and_since_when(tmp_path, without, folder):
    place = tmp_path / "runs" / "a"
    with holder(place, folder=folder, without=without) as process:
        with pytest.raises(InUseError) as refused, write_lock(place, folder=folder):
            pass
        message = str(refused.value)
        assert f"{place} is being written by process {process.pid} on {socket.gethostname()}" in message
        assert "(-c scan some folder), since 20" in message
        assert "wait until it has finished, stop it, or choose another path" in message
        process.send_signal(signal.SIGINT)  # Ctrl-C
        process.wait(10)
        assert not (tmp_path / "runs").exists()
        with write_lock(place, folder=folder):
            pass


@pytest.mark.parametrize("folder", [False, True])
def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, without, folder):
    place = tmp_path / "m.parquet"
    with holder(place, folder=folder, without=without) as process:
        process.kill()
        process.wait(10)
        lock = place / ".lock" if folder else tmp_path / ".m.parquet.lock"
        assert lock.exists()
        with write_lock(place, folder=folder):
            assert f'"process": {os.getpid()}' in lock.read_text()
            with holder_is_refused(place, folder=folder, without=without):
                pass
        assert not lock.exists()


@contextmanager
def holder_is_refused(path, *, folder, without):
    script = HOLD.format(path=str(path), folder=folder, without=without, inside="pass")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1 and f"InUseError: {path} is being written by process {os.getpid()}" in done.stderr
    yield


def test_a_process_number_that_was_given_to_another_process_is_not_the_holder(tmp_path, monkeypatch):
    def none(*args):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(locks.fcntl, "flock", none)
    place, lock = tmp_path / "m.parquet", tmp_path / ".m.parquet.lock"
    text = f'{{"process": {os.getppid()}, "started": "1", "host": "{socket.gethostname()}"}}'
    lock.write_text(text)  # as after a restart of the machine
    with write_lock(place):
        pass
    lock.write_text(text.replace(socket.gethostname(), "elsewhere"))
    with pytest.raises(InUseError, match=r"on elsewhere .*; if it no longer runs, delete .*m\.parquet\.lock"):
        write_lock(place).__enter__()
    lock.write_text("")
    with pytest.raises(InUseError, match="written by another process"):  # created a moment ago
        write_lock(place).__enter__()
    os.utime(lock, (0, 0))
    with write_lock(place):
        pass
    assert list(tmp_path.iterdir()) == []


def test_children_of_a_killed_process_do_not_keep_its_lock(tmp_path):
    place, child, started = tmp_path / "run", tmp_path / "child", tmp_path / "started"
    inside = (
        f"child = os.fork(); child or (open({str(started)!r}, 'w').close(), time.sleep(60)); "
        f"open({str(child)!r}, 'w').write(str(child))"
    )
    with holder(place, inside=inside) as process:
        while not started.exists():  # a child that has not run yet has not closed the lock
            time.sleep(0.01)
        process.kill()
        process.wait(10)
        try:
            with write_lock(place):
                pass
        finally:
            os.kill(int(child.read_text()), signal.SIGKILL)


def test_a_thread_may_ask_again_and_another_may_not(tmp_path):
    refused = []

    def other():
        try:
            with write_lock(tmp_path / "m.parquet"):
                pass
        except InUseError as error:
            refused.append(error)

    with write_lock(tmp_path / "m.parquet"), write_lock(tmp_path / "sub" / ".." / "m.parquet"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1
    other()
    assert len(refused) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_stays_and_a_place_that_cannot_be_written_has_no_lock(tmp_path):
    with write_lock(tmp_path / "runs" / "a", folder=True):
        (tmp_path / "runs" / "a" / "settings.toml").write_text("")
    assert [each.name for each in (tmp_path / "runs" / "a").iterdir()] == ["settings.toml"]
    (tmp_path / "file").write_text("")
    with write_lock(tmp_path / "file" / "m.parquet"):
        pass
    with write_lock("/proc/nothing.parquet"):
        pass


def test_a_function_holds_the_lock_of_its_argument(tmp_path):
    @with_write_lock("out")
    def write(*, out: Path | None) -> bool:
        return out is not None and out.with_name(".x.csv.lock").exists()

    assert write(out=tmp_path / "x.csv")
    assert not write(out=None)
    with holder(tmp_path / "x.csv"), pytest.raises(InUseError):
        write(out=tmp_path / "x.csv")
