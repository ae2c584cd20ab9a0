"""Batches under way: enough of them with the workers, handed out in order, on into the next epoch."""

from collections import deque

from cinefeed.feed.batch import Assembler, Batch, Pending
from cinefeed.feed.stats import Meter
from cinefeed.feed.workers import Crew


class Line:
    """The workers of a feed, and the batches that they have begun, from (epoch, index) on.

    `ahead` batches are under way beside the one that is waited for; with `goes_on` those after an epoch's last are the
    next epoch's first, so that no worker rests while the last clips of an epoch are made.
    """

    def __init__(
        self, crew: Crew, *, assembler: Assembler, epoch: int, index: int, ahead: int, goes_on: bool, warm: bool
    ) -> None:
        self.crew = crew
        self.pending: deque[Pending] = deque()
        self.epoch, self.index = epoch, index  # of the next batch to begin
        self._assembler = assembler
        self._ahead = ahead
        self._goes_on = goes_on
        self._warm = warm  # the kernels are compiled

    def take(self, epoch: int, *, meter: Meter) -> Batch:
        """Return the next batch of an epoch, and have those after it begun."""
        while len(self.pending) <= self._ahead and self._begin(epoch):
            pass
        return self._assembler.finish(self.pending.popleft(), self.crew, meter)

    def end(self, epoch: int) -> None:
        """Take note that all batches of an epoch have been taken."""
        if self.epoch == epoch:
            self.epoch, self.index = epoch + 1, 0

    def _begin(self, epoch: int) -> bool:
        """Begin one more batch, of this epoch or the next; say whether there was one."""
        if self.index == self._assembler.count(self.epoch):
            if self.epoch > epoch or not self._goes_on:
                return False
            self.epoch, self.index = self.epoch + 1, 0
            return True
        # The first clip compiles the kernels, or loads them: one worker does, the others wait.
        pending = self._assembler.begin(self.index, self.epoch, self.crew, first_alone=not self._warm)
        self.pending.append(pending)
        self.index += 1
        self._warm = True
        return True
