"""Timings of a feed, and what limits its speed."""

import threading
from dataclasses import asdict, dataclass, fields
from typing import Any

from cinefeed.core.text import format_bytes, format_percent
from cinefeed.video.ffmpeg.decoder import decoder_choice

# Waiting for less than this share of the time counts as not waiting.
_NOTICEABLE_WAIT = 0.1
# The machine is the bottleneck if its cores are full and other programs use this share of them or more.
_FULL, NOTICEABLE_LOAD = 0.9, 0.2
_OF_NOW = ("workers", "decoder", "is_packed")  # fields that are not sums
_WHOLE = (
    *("clips", "batches", "bytes", "retried", "compiled", "pyav"),
    *("requests", "refetches", "fetched_bytes", "cache_hits", "cache_misses"),
)


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What a feed has done so far. Seconds of work are sums over all workers; the consumer is the feed's caller."""

    clips: int = 0
    batches: int = 0
    bytes: int = 0  # of finished clips
    fetch_seconds: float = 0.0  # workers waited for remote files
    read_seconds: float = 0.0  # opening files and reading their headers
    decode_seconds: float = 0.0
    transform_seconds: float = 0.0  # fit, augmentation, colour, normalising, into the batch
    assemble_seconds: float = 0.0  # targets, weights and ids of a batch, made by the consumer, not by a worker
    wait_seconds: float = 0.0  # the consumer waited for a batch
    elapsed_seconds: float = 0.0  # from the first request of an epoch to its end, all epochs
    available_cpu_seconds: float = 0.0  # of all cores that the process may use, within `elapsed_seconds`; 0: unknown
    own_cpu_seconds: float = 0.0  # of the whole program, its model and its workers included
    other_cpu_seconds: float = 0.0  # of other programs on these cores
    delayed_seconds: float = 0.0  # the consumer's thread was ready to run and had no core
    workers: int = 0
    compiled: int = 0  # files of encoded video that compiled code decoded, each time one was opened
    pyav: int = 0  # ... and that PyAV decoded
    decoder: str = ""  # which of the two decodes if both can, and why; "" until a video was read
    is_packed: bool | None = None  # whether the videos are in packed shards
    retried: int = 0  # read errors of the disk that passed when the file was read again
    requests: int = 0  # to remote storage, and how many of them were repeated
    refetches: int = 0
    fetched_bytes: int = 0  # of remote files
    cache_hits: int = 0  # remote files that were in the cache when they were fetched ahead, and that were not
    cache_misses: int = 0
    skipped: tuple[str, ...] = ()  # rows that could not be fed, with the reason
    deaths: tuple[str, ...] = ()  # workers that ended unexpectedly, and their clip

    @property
    def stages(self) -> dict[str, float]:
        """Seconds of work by stage, over all workers."""
        fetch = {"fetch": self.fetch_seconds} if self.fetch_seconds else {}
        return fetch | {"read": self.read_seconds, "decode": self.decode_seconds, "transform": self.transform_seconds}

    @property
    def clips_per_second(self) -> float:
        """Clips per second of elapsed time, which includes the consumer's own work."""
        return self.clips / self.elapsed_seconds if self.elapsed_seconds else 0.0

    @property
    def seconds_a_clip(self) -> dict[str, float]:
        """Seconds of work by stage, for one clip; with "assemble" if it was measured."""
        assemble = {"assemble": self.assemble_seconds} if self.assemble_seconds else {}
        return {name: seconds / max(self.clips, 1) for name, seconds in (self.stages | assemble).items()}

    @property
    def wait_share(self) -> float:
        """Share of the elapsed time that the consumer waited for a batch."""
        return self.wait_seconds / self.elapsed_seconds if self.elapsed_seconds else 0.0

    @property
    def idle_share(self) -> float:
        """Share of the workers' time that was not spent on clips; without workers, of the caller's time."""
        available = max(self.workers, 1) * self.elapsed_seconds
        return max(0.0, 1 - sum(self.stages.values()) / available) if available else 0.0

    @property
    def hit_rate(self) -> float:
        """Share of remote files that were in the cache; 0 if none was read."""
        return self.cache_hits / max(self.cache_hits + self.cache_misses, 1)

    @property
    def machine_is_busy(self) -> bool:
        """Whether other programs delay the consumer: all cores are busy, a fifth or more with other programs.

        A model on a GPU that gets its batches in time is not delayed, even if all cores are busy.
        """
        available = self.available_cpu_seconds
        if not available:
            return False
        full = self.own_cpu_seconds + self.other_cpu_seconds > _FULL * available
        delayed = self._feed_is_slower or self.delayed_seconds > _NOTICEABLE_WAIT * self.elapsed_seconds
        return full and delayed and self.other_cpu_seconds > NOTICEABLE_LOAD * available

    @property
    def verdict(self) -> str:
        """Return one sentence on what limits the speed: the feed, the network, the model, or other programs.

        >>> Stats(read_seconds=1, decode_seconds=8, transform_seconds=1, wait_seconds=4, elapsed_seconds=5).verdict
        'the feed is the bottleneck: the model waits 80 % of the time, decode takes 80 % of the feed'
        >>> Stats(fetch_seconds=9, wait_seconds=3, elapsed_seconds=5, fetched_bytes=10**9).verdict[:58]
        'the network is the bottleneck: the model waits 60 % of the'
        """
        if not self._fed:
            return "nothing has been fed yet"
        if self.machine_is_busy:
            return f"the machine is the bottleneck: other programs take {format_percent(self._others)} of its cores"
        if self._feed_is_slower:
            stage, share = self._heaviest
            side, rate = ("network", f" at {self._fetch_rate} a second") if stage == "fetch" else ("feed", "")
            waits = format_percent(self.wait_share)
            text = (
                f"the {side} is the bottleneck: the model waits {waits} of the time, {stage} takes {share} of the "
                f"feed{rate}"
            )
            if stage == "decode" and self.is_packed is False:
                text += "; 'cinefeed bench' measures what 'cinefeed pack' would give"
            return text
        return f"the model is the bottleneck: workers idle {format_percent(self.idle_share)} of the time"

    @property
    def other_cores(self) -> float:
        """Number of cores that other programs used, on average; 0 if it was not measured.

        >>> Stats(available_cpu_seconds=20.0, other_cpu_seconds=14.0, elapsed_seconds=10.0).other_cores
        1.4
        """
        return self.other_cpu_seconds / self.elapsed_seconds if self.elapsed_seconds else 0.0

    def line(self) -> str:
        """Return the verdict as a short line, which is rewritten while a model trains.

        >>> Stats(clips=205, decode_seconds=8, read_seconds=2, wait_seconds=0.6, elapsed_seconds=5, workers=2).line()
        '41 clips/s, waits 12 %, decode 80 %: the feed is the bottleneck'
        >>> Stats(clips=205, decode_seconds=4, wait_seconds=0.1, elapsed_seconds=5, workers=2).line()
        '41 clips/s, waits 2 %, workers idle 60 %: the model is the bottleneck'
        """
        if not self._fed:
            return self.verdict
        side, what = "model", f"workers idle {format_percent(self.idle_share)}"
        if self.machine_is_busy:
            side, what = "machine", f"other programs {format_percent(self._others)}"
        elif self._feed_is_slower:
            side, what = "network" if self._heaviest[0] == "fetch" else "feed", " ".join(self._heaviest)
        rate = f"{self.clips_per_second:.3g}" if self.clips_per_second < 100 else f"{self.clips_per_second:.0f}"
        return f"{rate} clips/s, waits {format_percent(self.wait_share)}, {what}: the {side} is the bottleneck"

    def since(self, before: "Stats") -> "Stats":
        """Return the difference to earlier stats of the same feed.

        >>> Stats(clips=9, elapsed_seconds=3.0).since(Stats(clips=5, elapsed_seconds=1.0)).clips_per_second
        2.0
        """
        differences: dict[str, Any] = {name: getattr(self, name) for name in _OF_NOW}
        for name in (each.name for each in fields(Stats) if each.name not in _OF_NOW):
            now, then = getattr(self, name), getattr(before, name)
            differences[name] = (
                tuple(each for each in now if each not in then) if isinstance(now, tuple) else now - then
            )
        return Stats(**differences)

    def as_dict(self) -> dict[str, object]:
        """Return every figure, for JSON."""
        names = (
            "clips_per_second",
            "seconds_a_clip",
            "wait_share",
            "idle_share",
            "hit_rate",
            "machine_is_busy",
            "verdict",
        )
        return asdict(self) | {name: getattr(self, name) for name in names}

    @property
    def _fed(self) -> bool:
        return bool(self.elapsed_seconds and sum(self.stages.values()))

    @property
    def _feed_is_slower(self) -> bool:
        return self.wait_share > _NOTICEABLE_WAIT

    @property
    def _fetch_rate(self) -> str:
        return format_bytes(self.fetched_bytes / self.elapsed_seconds)

    @property
    def _others(self) -> float:
        """The share of the cores that other programs take."""
        return self.other_cpu_seconds / self.available_cpu_seconds

    @property
    def _heaviest(self) -> tuple[str, str]:
        """The stage that takes most of the workers' time, and its share of it."""
        stage, seconds = max(self.stages.items(), key=lambda each: each[1])
        return stage, format_percent(seconds / sum(self.stages.values()))


class StatsRecorder:
    """Sums of figures, which several threads may add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[str, float] = {}

    def add(self, **amounts: float) -> None:
        """Add to the sums of the named figures of Stats."""
        with self._lock:
            for name, amount in amounts.items():
                self._sums[name] = self._sums.get(name, 0) + amount

    def stats(self, *, workers: int, is_packed: bool | None = None, **lists: tuple[str, ...]) -> Stats:
        """Return the sums so far."""
        with self._lock:
            sums = dict(self._sums)
        whole: dict[str, Any] = {name: int(sums.pop(name, 0)) for name in _WHOLE}
        if whole["compiled"] or whole["pyav"]:
            whole["decoder"] = f"{decoder_choice().name}: {decoder_choice().reason}"
        return Stats(workers=workers, is_packed=is_packed, **whole, **lists, **sums)  # type: ignore[arg-type]  # sums are seconds, floats all
