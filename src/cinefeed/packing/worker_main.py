"""The main function of a worker process of packing: it packs the rows that it reads, one after the other."""

import os
import pickle
import signal
import sys
from pathlib import Path

import cv2

from cinefeed.core.files import write_error
from cinefeed.packing.rows import RowJob, pack_row
from cinefeed.video.readers import register_reader


def main() -> None:
    """Read a RowJob from stdin, write its RowResult, or the OSError of a full disk, to stdout, until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C, and closes stdin
    cv2.setNumThreads(1)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    registered: tuple[object, ...] = ()
    while True:
        try:
            job: RowJob = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if job.readers != registered:
            for reader in job.readers:
                register_reader(reader.suffixes, reader.opener, magic=reader.magic, name=reader.name, replace=True)
            registered = job.readers
        try:
            answer: object = pack_row(job)
        except OSError as error:
            answer = write_error(error, Path(error.filename or job.folder / job.name))
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    main()
