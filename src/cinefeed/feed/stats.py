"""Where a feed's time goes, and which side waits for the other."""

import threading
from dataclasses import asdict, dataclass
from typing import Any

# A consumer that waits for less than this share of the time is not held up in a way that anybody would notice.
_NOTICEABLE_WAIT = 0.1


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What a feed has done so far. Seconds of workers add up over all of them; waiting is the consumer's own."""

    clips: int = 0
    batches: int = 0
    bytes: int = 0  # of finished clips
    read_seconds: float = 0.0  # opening files and reading their headers
    decode_seconds: float = 0.0
    transform_seconds: float = 0.0  # fit, augmentation, colour, normalising, into the batch
    wait_seconds: float = 0.0  # the consumer waited for a batch
    elapsed_seconds: float = 0.0  # from the first request of an epoch to its end, all epochs
    workers: int = 0
    skipped: tuple[str, ...] = ()  # rows that could not be fed, with the reason
    deaths: tuple[str, ...] = ()  # workers that died, and at what

    @property
    def stages(self) -> dict[str, float]:
        """Seconds of work by stage, over all workers."""
        return {"read": self.read_seconds, "decode": self.decode_seconds, "transform": self.transform_seconds}

    @property
    def clips_per_second(self) -> float:
        """Clips handed out a second of elapsed time, the consumer's own work included."""
        return self.clips / self.elapsed_seconds if self.elapsed_seconds else 0.0

    @property
    def verdict(self) -> str:
        """Say in words who waits for whom.

        >>> Stats(read_seconds=1, decode_seconds=8, transform_seconds=1, wait_seconds=4, elapsed_seconds=5).verdict
        'the feed is the bottleneck: the model waits 80 % of the time, decode takes 80 % of the feed'
        """
        busy = sum(self.stages.values())
        if not self.elapsed_seconds or not busy:
            return "nothing has been fed yet"
        waiting = self.wait_seconds / self.elapsed_seconds
        stage, seconds = max(self.stages.items(), key=lambda each: each[1])
        if waiting > _NOTICEABLE_WAIT:
            return (
                f"the feed is the bottleneck: the model waits {waiting:.0%} of the time, "
                f"{stage} takes {seconds / busy:.0%} of the feed"
            ).replace("%", " %")
        idle = max(0.0, 1 - busy / (max(self.workers, 1) * self.elapsed_seconds))
        return f"the model is the bottleneck: workers idle {idle:.0%} of the time".replace("%", " %")

    def as_dict(self) -> dict[str, object]:
        """Return every figure, for JSON."""
        return {**asdict(self), "clips_per_second": self.clips_per_second, "verdict": self.verdict}


class Meter:
    """Adds up figures from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[str, float] = {}

    def add(self, **amounts: float) -> None:
        """Add to the sums of the named figures of Stats."""
        with self._lock:
            for name, amount in amounts.items():
                self._sums[name] = self._sums.get(name, 0) + amount

    def stats(self, *, workers: int, **lists: tuple[str, ...]) -> Stats:
        """Return the sums so far."""
        with self._lock:
            sums = dict(self._sums)
        whole: dict[str, Any] = {name: int(sums.pop(name, 0)) for name in ("clips", "batches", "bytes")}
        return Stats(workers=workers, **whole, **lists, **sums)  # type: ignore[arg-type]  # sums are seconds, floats all
