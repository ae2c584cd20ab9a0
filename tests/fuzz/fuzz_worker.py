"""Reads broken files in a process that may die of it: `python fuzz_worker.py`.

It says "ready", then takes one job a line and gives one answer a line. A job is {"path", "healthy", "part", "library"},
or {"plant"} for one of `PLANTS`; the answer is {"verdict", "detail", "peak_mb"}. The verdict is

read:     frames came, as many as asked, of the size in the metadata, and the same when they are read again (of
          encoded video see test_frames.py)
refused:  an error of cinefeed's own, which names the file
foreign:  any other error, one that does not name the file, or other frames
memory:   what was asked for could not be had
"""

import faulthandler
import json
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cinefeed import open_video, probe
from cinefeed.core.errors import CinefeedError, SourceError
from cinefeed.video.metadata import VideoMetadata

_ROOM = 4 << 30  # bytes of address space above what the imports take: it guards the machine, the watch finds 1 GB


def _refuse_without_a_name() -> None:
    raise SourceError("some file is broken")


# What a library might do, to show that it is noticed.
PLANTS: dict[str, Callable[[], object]] = {
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "hang": lambda: time.sleep(600),
    "memory": lambda: (np.ones(2 << 30, np.uint8), time.sleep(1)),
    "too much memory": lambda: bytearray(64 << 30),
    "foreign": lambda: {}["absent"],
    "no name": _refuse_without_a_name,
}


@lru_cache(maxsize=32)
def healthy_metadata(path: str, part: str | None) -> VideoMetadata:
    """Return the metadata of the file before it was damaged, as a manifest stores it."""
    return probe(path, part=part)


def attempts(job: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """Return the ways in which a file is used: scanned and read, and read with the metadata of an earlier scan."""
    if "plant" in job:
        return {"plant": PLANTS[job["plant"]]}
    path, part = job["path"], job["part"]

    def read(metadata: VideoMetadata | None) -> None:
        with open_video(path, part=part, metadata=metadata) as source:
            last, source_metadata, frame_bytes = len(source) - 1, source.metadata, {}
            for numbers in (range(min(last + 1, 8)), [last, last // 2, last // 2, 0]):
                frames = source.read(numbers)
                expected = (len(numbers), source_metadata.height, source_metadata.width)
                if frames.shape[:3] != expected:
                    raise AssertionError(f"frames of shape {frames.shape}, {expected} was asked for")
                for number, frame in zip(numbers, frames, strict=True):
                    again = frame_bytes.setdefault(number, frame).tobytes()  # as bytes: numbers may be none (NaN)
                    if again != frame.tobytes() and job["library"] != "FFmpeg":
                        raise AssertionError(f"frame {number} is another one when it is read again")

    return {
        "probe": lambda: read(probe(path, part=part)),
        "probe packets": lambda: read(probe(path, part=part, verify="packets")),
        "open": lambda: read(None),
        "open with earlier metadata": lambda: read(healthy_metadata(job["healthy"], part)),
    }


def judge(job: dict[str, Any]) -> tuple[str, str]:
    """Return the verdict of a file, the worst of its attempts, and what was said."""
    verdict, detail = "read", ""
    for name, attempt in attempts(job).items():
        try:
            attempt()
        except CinefeedError as error:
            message = str(error)
            if Path(job.get("path", "some.mp4")).name not in message:
                return "foreign", f"{name}: the file is not named: {type(error).__name__}: {message}"
            verdict, detail = "refused", f"{name}: {message}"
        except MemoryError as error:
            return "memory", f"{name}: {error!r} {_where(error)}"
        except Exception as error:
            return "foreign", f"{name}: {type(error).__name__}: {error} {_where(error)}"
    return verdict, detail


def _where(error: BaseException) -> str:
    frames = [each for each in traceback.extract_tb(error.__traceback__) if "cinefeed" in each.filename]
    return f"(cinefeed/{Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


def peak_mb() -> float:
    """Return the most memory resident since the last call, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return peak / 1024


def main() -> None:
    """Answer job after job, until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not pass for an answer
    faulthandler.enable()
    warnings.simplefilter("ignore")
    resident_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (resident_bytes + _ROOM, resident_bytes + _ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        verdict, detail = judge(json.loads(line))
        print(json.dumps({"verdict": verdict, "detail": detail, "peak_mb": peak_mb()}), file=answers, flush=True)


if __name__ == "__main__":
    main()
