"""Batches under way: enough of them with the workers, handed out in order, on into the next epoch."""

from collections import deque

from cinefeed.feed.assemble import Assembler, Pending
from cinefeed.feed.batch import Batch
from cinefeed.feed.stats import Meter
from cinefeed.feed.workers import Crew


class Line:
    """The workers of a feed, and the batches that they have begun, from (epoch, index) on.

    Batches are begun by the slot: one, or all over which clips are spread. `ahead` slots are under way beside the one
    that is waited for; with `goes_on` those after an epoch's last are the next epoch's first, so that no worker rests
    while the last clips of an epoch are made.
    """

    def __init__(
        self, crew: Crew, *, assembler: Assembler, epoch: int, index: int, ahead: int, goes_on: bool, warm: bool
    ) -> None:
        self.crew = crew
        self.pending: deque[Pending] = deque()
        self.ready: deque[Batch] = deque()  # what is left of a slot
        self.epoch = epoch  # of the next slot to begin, and its number there
        self.index, self._passed_over = divmod(index, assembler.layout.batches)
        self._assembler = assembler
        self._ahead = ahead
        self._goes_on = goes_on
        self._warm = warm  # the kernels are compiled

    def take(self, epoch: int, *, meter: Meter) -> Batch:
        """Return the next batch of an epoch, and have those after it begun."""
        if not self.ready:
            while len(self.pending) <= self._ahead and self._begin(epoch):
                pass
            self.ready.extend(self._assembler.finish(self.pending.popleft(), self.crew, meter))
            while self._passed_over:  # those that were handed out before a resume
                self.ready.popleft()
                self._passed_over -= 1
        return self.ready.popleft()

    def end(self, epoch: int) -> None:
        """Take note that all batches of an epoch have been taken."""
        if self.epoch == epoch:
            self.epoch, self.index = epoch + 1, 0

    def drop(self) -> bool:
        """Let go of all that is under way; say whether the workers can go on with something else."""
        able = self.crew.drop([clip for pending in self.pending for clip in pending.clips])
        self.pending.clear()
        self.ready.clear()
        return able

    def _begin(self, epoch: int) -> bool:
        """Begin one more slot, of this epoch or the next; say whether there was one."""
        if self.index == self._assembler.slots_of(self.epoch):
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
