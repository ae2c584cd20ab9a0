"""What a feed and its worker processes say to each other: small packets over a socket, pixels never.

to a worker     the job: number, slot, place, row, epoch, position; with a slot's first job, its file descriptor
from a worker   ready, or why it cannot serve; of each job the seconds that it took, or its error
"""

import builtins
import json
import struct
import traceback
from typing import Any, NamedTuple

from cinefeed import errors
from cinefeed.feed.clip import Draw, Took

PACKET = 60_000  # bytes at most; a traceback is cut to fit
READY, UNFIT, DONE, FAILED = b"R", b"U", b"D", b"F"
OF_ROWS = ("rows", "masks")  # of a ClipMaker: their columns lie in memory that all workers map
MASKS = "mask path"  # the column of masks among them
_JOB = struct.Struct("<6q")
_TOOK = struct.Struct("<q3dq")


class Job(NamedTuple):
    """A clip to be made into a place of a slot."""

    number: int
    slot: int
    place: int
    draw: Draw


def pack_job(job: Job) -> bytes:
    """Return a job as bytes."""
    return _JOB.pack(job.number, job.slot, job.place, *job.draw)


def unpack_job(packet: bytes) -> Job:
    """Return the job that `pack_job` packed.

    >>> unpack_job(pack_job(Job(1, 2, 3, Draw(4, 5, 6))))
    Job(number=1, slot=2, place=3, draw=Draw(row=4, epoch=5, position=6))
    """
    number, slot, place, *draw = _JOB.unpack(packet)
    return Job(number, slot, place, Draw(*draw))


def pack_done(number: int, took: Took) -> bytes:
    """Return the end of a job as bytes."""
    return DONE + _TOOK.pack(number, *took)


def unpack_done(packet: bytes) -> tuple[int, Took]:
    """Return what `pack_done` packed."""
    number, *took = _TOOK.unpack(packet[1:])
    return number, Took(*took)


def pack_failed(number: int, error: BaseException) -> bytes:
    """Return an error as bytes: its kind, its message, and the traceback of the worker."""
    trace = "".join(traceback.format_exception(error))
    told = {"number": number, "kind": type(error).__name__, "message": str(error)[:8_000], "trace": trace[-12_000:]}
    return FAILED + json.dumps(told).encode()


def unpack_failed(packet: bytes) -> tuple[int, BaseException]:
    """Return the number of the job, and its error: of the same kind where it is one of ours, with the trace as a note.

    >>> unpack_failed(pack_failed(7, errors.DecodeError("it breaks")))
    (7, DecodeError('it breaks'))
    """
    told = json.loads(packet[1:])
    kind: Any = getattr(errors, told["kind"], None) or getattr(builtins, told["kind"], errors.FeedError)
    try:
        error: BaseException = kind(told["message"])
    except TypeError:  # it wants more than a message
        error = errors.FeedError(f"{told['kind']}: {told['message']}")
    error.add_note(f"In the worker:\n{told['trace']}")
    return told["number"], error
