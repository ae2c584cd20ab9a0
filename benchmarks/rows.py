"""Rows of the benchmarks page: contestants, their values run by run, and whether they deliver the same frames."""

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

DATA = Path(os.environ.get("CINEFEED_DATA", "../shared/data"))
MOST_WRONG = 0.01  # share of frames; with more a peer gets no ratio


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """What was measured of one library.

    name:      name and version, as displayed
    values:    one a run, in the unit of the row; empty if it was not measured
    problem:   why it gets no ratio: it is not installed, or returns other frames
    is_peer:   False for variants of cinefeed, and for bounds such as a copy, with which it is not compared
    note:      text beside the values, such as the size on disk
    """

    name: str
    values: tuple[float, ...] = ()
    problem: str = ""
    is_peer: bool = True
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison. The first contestant is cinefeed; the i-th values of all were measured in the same turn.

    what:              what was done, with the sizes
    unit:              of the values
    check:             how the frames were compared, or why there are none to compare
    higher_is_better:  of the values
    """

    what: str
    unit: str
    check: str
    contestants: tuple[Contestant, ...]
    higher_is_better: bool = True

    def ratios(self, peer: Contestant) -> tuple[float, ...]:
        """Return how many times better cinefeed was in each run; empty without comparable values."""
        ours = self.contestants[0]
        if peer.problem or ours.problem:
            return ()
        pairs = zip(ours.values, peer.values, strict=False)
        return tuple(one / two if self.higher_is_better else two / one for one, two in pairs)

    def fastest_peer(self) -> Contestant | None:
        """Return the peer with the lowest median ratio, or None if no peer was measured."""
        peers = [each for each in self.contestants[1:] if each.is_peer and self.ratios(each)]
        return min(peers, key=lambda each: statistics.median(self.ratios(each)), default=None)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The rows of one part, and what was left out of it."""

    rows: tuple[Row, ...] = ()
    problems: tuple[str, ...] = ()
    seconds: float = 0.0
    date: str = ""
    load: float = field(default=0.0)  # of the machine, before the part ran

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Result":
        """Read what `write` has written."""
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rows = []
        for row in content.pop("rows"):
            contestants = [Contestant(**each | {"values": tuple(each["values"])}) for each in row.pop("contestants")]
            rows.append(Row(**row, contestants=tuple(contestants)))
        return cls(**content | {"rows": tuple(rows), "problems": tuple(content["problems"])})


def in_turns(ways: Mapping[str, Callable[[], float]], *, runs: int) -> dict[str, list[float]]:
    """Return the values of all ways, called one after the other in each run."""
    values: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            values[name].append(way())
    return values


def rate(run: Callable[[], int]) -> float:
    """Return the number that a function returns, per second of its time."""
    began = time.perf_counter()
    number = run()
    return number / (time.perf_counter() - began)


def contestants(
    values: Mapping[str, Iterable[float]],
    *,
    problems: Mapping[str, str] | None = None,
    bounds: Iterable[str] = (),
    notes: Mapping[str, str] | None = None,
) -> tuple[Contestant, ...]:
    """Return contestants of values by name, the first of which is cinefeed's.

    `problems` has also the names of those that were not measured; `bounds` are the names of those that are no peers.
    """
    problems, notes, bounds = problems or {}, notes or {}, set(bounds)
    names = [*values, *(name for name in problems if name not in values)]
    return tuple(
        Contestant(
            name=name,
            values=tuple(values.get(name, ())),
            problem=problems.get(name, ""),
            is_peer=name not in bounds,
            note=notes.get(name, ""),
        )
        for name in names
    )


def missing(error: BaseException) -> str:
    """Return the problem of a contestant whose import failed."""
    return f"cannot be loaded here: {str(error).strip().splitlines()[0][:90] if str(error).strip() else error!r}"


def wrong_frames(frames: ArrayLike, expected: ArrayLike, *, neighbours: Iterable[ArrayLike]) -> int:
    """Return how many frames (n, ...) are nearer to a neighbour of the expected frame than to that itself.

    Half a grey level of difference does not count, as resizing and colour conversion differ between libraries.
    """
    values = np.asarray(frames, np.float32)
    axes = tuple(range(1, values.ndim))
    own, *others = (np.abs(values - np.asarray(each, np.float32)).mean(axes) for each in (expected, *neighbours))
    return int((own > np.minimum.reduce(others) + 0.5).sum())


def frames_problem(wrong: int, count: int) -> str:
    """Return the problem of a peer with so many wrong frames, or an empty text."""
    return f"returns other frames ({wrong / count:.0%} of them)" if wrong > MOST_WRONG * count else ""
