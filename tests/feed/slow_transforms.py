"""Transforms that nap or die, in a module that worker processes can import."""

import os
import signal
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Nap:
    """Take a while; kill the process where a clip's first pixel is at least `kill_where`."""

    seconds: float
    kill_where: int | None = None

    def sample(self, rng, info):
        return {}

    def apply(self, frames, parameters):
        time.sleep(self.seconds)
        if self.kill_where is not None and frames[0, 8, 8, 0] >= self.kill_where:
            os.kill(os.getpid(), signal.SIGKILL)
        return frames
