"""The main function of a worker process. It never imports the user's script, so scripts need no `__main__` guard."""

import logging
import os
import pickle
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from cinefeed.data.manifest.rows import Rows
from cinefeed.feed.clip_pipeline import ClipPipeline, ClipTimings
from cinefeed.feed.mask import mask_rows
from cinefeed.feed.workers.buffers import BatchBuffer, map_buffer
from cinefeed.feed.workers.messages import (
    GROUP,
    MASKS,
    PACKET,
    READY,
    UNFIT,
    Progress,
    pack_done,
    pack_failed,
    unpack_jobs,
)
from cinefeed.transforms.resample import shrink_factors
from cinefeed.video.ffmpeg import decoder
from cinefeed.video.readers import register_reader

_SILENT_SECONDS = 0.01  # after this time, the completed clips of a packet are reported without waiting for the rest


def main(arguments: list[str]) -> None:
    """Make clips for the feed at the other end of a socket until it closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C, and closes its end of the socket
    cv2.setNumThreads(1)
    logging.getLogger(decoder.__name__).setLevel(logging.ERROR)  # the process of the feed logs it, once
    line_fd, progress_fd, settings_fd, columns_fd = map(int, arguments)
    with suppress(OSError):  # the feed has closed the socket
        _serve(socket.socket(fileno=line_fd), Progress(progress_fd), settings_fd, columns_fd)


def _serve(line: socket.socket, progress: Progress, settings_fd: int, columns_fd: int) -> None:
    try:
        # Written by the parent process. Opened by name: workers of one descriptor would share its file position.
        settings = pickle.loads(Path(f"/proc/self/fd/{settings_fd}").read_bytes())
        for reader in settings["readers"]:
            register_reader(reader.suffixes, reader.opener, magic=reader.magic, name=reader.name, replace=True)
        rows, masks = _rows(columns_fd, **settings["rows"])
        if torch := sys.modules.get(
            "torch"
        ):  # imported by a callable; each worker would start as many threads as there are cores
            torch.set_num_threads(1)
        pipeline = ClipPipeline(rows=rows, masks=masks, **settings["maker"])
        shrink_factors(np.eye(3), 1, 1)  # numba needs 0.4 s before its first loop; the feed is still planning
    except Exception as error:
        line.send(UNFIT + f"{type(error).__name__}: {error}".encode()[:PACKET])
        return
    line.send(READY)
    buffers: dict[int, BatchBuffer] = {}
    ended = 0
    while True:
        packet, descriptors, _, _ = socket.recv_fds(line, PACKET, GROUP)
        if not packet:
            return
        jobs, unreported, reported_at = unpack_jobs(packet), list[ClipTimings](), time.perf_counter()
        new = dict.fromkeys(job.buffer for job in jobs if job.buffer not in buffers)
        for number, fd in zip(new, descriptors, strict=True):
            buffers[number] = map_buffer(fd, settings["layout"], number=number)
            os.close(fd)
        for job in jobs:
            failed = None
            try:
                unreported.append(pipeline.make(job.draw, *buffers[job.buffer].place(job.place)))
            except Exception as error:
                failed = pack_failed(error)
            ended += 1
            progress.write(ended)
            if unreported and (failed or job is jobs[-1] or time.perf_counter() - reported_at > _SILENT_SECONDS):
                line.send(pack_done(unreported))
                unreported, reported_at = [], time.perf_counter()
            if failed:
                line.send(failed)


def _rows(fd: int, *, root: str, private: bool, cache: tuple[Path | None, int | None]) -> tuple[Rows, Rows | None]:
    """Return the rows of a manifest, and of its masks, from memory that all workers share: nothing is copied."""
    with pa.memory_map(f"/proc/self/fd/{fd}") as memory:
        table: Any = pa.ipc.open_file(memory).read_all()
    os.close(fd)
    rows = Rows(table, root=root, private=private).with_cache(*cache)
    masks = None
    if MASKS in table.schema.names:
        masks = mask_rows(table.column("id"), table.column(MASKS), root=root, private=private)
        if rows.remote is not None:
            masks.remote = rows.remote
    return rows, masks


if __name__ == "__main__":
    main(sys.argv[1:])
