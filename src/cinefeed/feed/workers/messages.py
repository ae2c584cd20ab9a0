"""The messages between a feed and its worker processes: small packets over a socket, without pixels.

to a worker     jobs, in their order: buffer, place, row, epoch, position; with a buffer's first job, its descriptor
from a worker   ready, or why it cannot start; for each job, in the same order, its timings or its error

A packet holds several jobs or several timings: each packet wakes a process, which costs as much as a fifth of a small
clip. The number of completed jobs is also in memory that both sides map, because a killed worker sends no message.
"""

import builtins
import json
import mmap
import struct
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple

from cinefeed.core import errors
from cinefeed.feed.clip_pipeline import ClipTimings, PlanEntry

PACKET = 60_000  # maximum bytes; a traceback is cut to fit
READY, UNFIT, DONE, FAILED = b"R", b"U", b"D", b"F"
OF_ROWS = ("rows", "masks")  # fields of a ClipPipeline whose columns are in memory that all workers map
MASKS = "mask path"  # the column of masks among them
GROUP = 4  # maximum number of jobs in a packet
_JOB = struct.Struct("<5q")
_TOOK = struct.Struct("<3d3qd3q")
_COUNT = struct.Struct("<q")


class Job(NamedTuple):
    """A clip to be made into a place of a buffer."""

    buffer: int
    place: int
    draw: PlanEntry


def pack_jobs(jobs: Sequence[Job]) -> bytes:
    """Return jobs as bytes."""
    return b"".join(_JOB.pack(job.buffer, job.place, *job.draw) for job in jobs)


def unpack_jobs(packet: bytes) -> list[Job]:
    """Return the jobs that `pack_jobs` packed.

    >>> unpack_jobs(pack_jobs([Job(2, 3, PlanEntry(4, 5, 6))]))
    [Job(buffer=2, place=3, draw=PlanEntry(row=4, epoch=5, position=6))]
    """
    return [Job(buffer, place, PlanEntry(*draw)) for buffer, place, *draw in _JOB.iter_unpack(packet)]


def pack_done(timings: Sequence[ClipTimings]) -> bytes:
    """Return the timings of jobs as bytes."""
    return DONE + b"".join(_TOOK.pack(*each) for each in timings)


def unpack_done(packet: bytes) -> list[ClipTimings]:
    """Return the timings that `pack_done` packed."""
    return [ClipTimings(*each) for each in _TOOK.iter_unpack(packet[1:])]


class Progress:
    """The number of jobs that a worker has completed, in memory shared with the feed: `Progress.SIZE` bytes."""

    SIZE = _COUNT.size

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, self.SIZE)

    @property
    def count(self) -> int:
        """The number of completed jobs."""
        return int(_COUNT.unpack_from(self._memory)[0])

    def write(self, count: int) -> None:
        """Store the number of completed jobs."""
        self._memory[:] = _COUNT.pack(count)  # in one step: it may be read at any moment

    def close(self) -> None:
        """Release the memory."""
        self._memory.close()


def pack_failed(error: BaseException) -> bytes:
    """Return an error as bytes: its kind, its message, and the traceback of the worker."""
    trace = "".join(traceback.format_exception(error))
    report = {"kind": type(error).__name__, "message": str(error)[:8_000], "trace": trace[-12_000:]}
    return FAILED + json.dumps(report).encode()


def unpack_failed(packet: bytes) -> BaseException:
    """Return the error of a job: of the same type if cinefeed or Python defines it, with the trace as a note.

    >>> unpack_failed(pack_failed(errors.DecodeError("it breaks")))
    DecodeError('it breaks')
    """
    report = json.loads(packet[1:])
    kind: Any = getattr(errors, report["kind"], None) or getattr(builtins, report["kind"], errors.FeedError)
    try:
        error: BaseException = kind(report["message"])
    except TypeError:  # its type needs more than a message
        error = errors.FeedError(f"{report['kind']}: {report['message']}")
    error.add_note(f"In the worker:\n{report['trace']}")
    return error
