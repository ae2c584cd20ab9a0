"""What balancing did to some labels: the distributions, how far apart they are, and where it asked too much."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cinefeed.balance.measure import effective_rows, ks_distance, ks_to_uniform, total_variation
from cinefeed.balance.order import Whole
from cinefeed.balance.plan import Plan
from cinefeed.balance.rarest import Carried, count_carried
from cinefeed.balance.strata import Strata
from cinefeed.text import format_count

Floats = NDArray[np.float64]
_MANY = 10  # draws a row: augmented or not, a network begins to know it by heart
_NAMED = 3  # strata in one warning


@dataclass(frozen=True, kw_only=True, eq=False)
class BalanceReport:
    """What a sampler makes of some labels in one epoch: what a summary says, a page shows and a run keeps.

    By stratum (class or label bin), each an array (strata,): `raw`, its rows; `target`, the draws that its share asks
    for; `expected`, those that `max_repeats` or `cap` leave of them; `reached`, the draws of this epoch's plan, or
    where balancing is `by` weights, their weights in sum; `fewest` and `most`, the draws of its rows that are drawn
    least and most; `bounds` (strata, 2), the edges of bins.

    `distance` is 0 to 1: of "raw" and "reached" to the target, Kolmogorov-Smirnov for numbers, total variation for
    classes; and for bins with edges to the uniform distribution between the first and the last, with some left over
    since labels are points. `deviation` is the largest distance, in draws, of this epoch from what was expected for a
    row, a stratum, a stratum in a full batch, a group over all strata, or one of several labels of a row.

    `effective_rows` is Kish's effective sample size of the epoch's expected draws; `largest_repeat` is how often the
    most drawn row comes; `never_drawn` counts rows left out of this epoch; `largest_weight` is 1 where nothing is
    weighted; `labels` has rows and draws of each label, where rows carry several. `warnings` say where too much is
    asked.
    """

    names: tuple[str, ...]
    kind: str
    by: Literal["draws", "weights"] = "draws"
    raw: Whole
    target: Floats
    expected: Floats
    reached: Floats
    fewest: Whole
    most: Whole
    bounds: Floats | None = None
    rows: int
    draws: int
    distance: Mapping[str, float]
    deviation: Mapping[str, float]
    effective_rows: float
    largest_repeat: int
    largest_weight: float = 1.0
    never_drawn: int
    labels: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain data, for JSON."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}

    def __str__(self) -> str:
        unit = "draws" if self.by == "draws" else "rows' weight"
        if len(self.names) > 6:
            parts = (
                f"{len(self.names)} {'classes' if self.kind == 'class' else 'label bins'}, {self.raw.min()} to "
                f"{self.raw.max()} rows each -> {self.reached.min():.4g} to {self.reached.max():.4g} {unit}"
            )
        else:
            parts = ", ".join(f"{n} {r} -> {f:.4g}" for n, r, f in zip(self.names, self.raw, self.reached, strict=True))
        largest = f"most drawn row {self.largest_repeat} times, {self.never_drawn} rows not drawn"
        if self.by == "weights":
            largest = f"largest weight {self.largest_weight:.3g}"
        size = f"effective sample size {self.effective_rows:,.1f}"
        ahead = f"{self.rows} rows -> {self.draws} draws: {parts}; {largest}; {size}"
        return "\n".join([ahead, *(f"warning: {each}" for each in self.warnings)])


def make_report(
    *,
    strata: Strata,
    plan: Plan,
    target: Floats,
    expected: Floats,
    weights: Floats | None = None,
    groups: Whole | None = None,
    carried: Carried | None = None,
    batch_size: int | None = None,
    limit: str = "",
) -> BalanceReport:
    """Return the report of a plan; `target` and `expected` are draws by row (rows,), before and after the `limit`."""
    numbers, count = strata.numbers, len(strata.names)
    drawn = np.bincount(plan.rows, minlength=len(numbers))
    counted = drawn.astype(np.float64) if weights is None else drawn * weights
    wanted, left, reached = (_by_stratum(strata, each) for each in (target, expected, counted))
    fewest, most, largest = np.full(count, len(plan)), np.zeros(count, np.int64), np.zeros(count)
    np.minimum.at(fewest, numbers, drawn)
    np.maximum.at(most, numbers, drawn)
    np.maximum.at(largest, numbers, expected)
    deviation = {}
    if weights is None:
        deviation = {"row": _furthest(drawn, expected), "stratum": _furthest(reached, left)}
        if batch_size is not None and len(plan) >= batch_size:
            deviation["batch"] = _batch_deviation(plan, left, batch_size)
        if groups is not None:
            deviation["group"] = _furthest(np.bincount(groups, drawn), np.bincount(groups, expected))
    labels: dict[str, tuple[float, float]] = {}
    if carried is not None:
        raw, fed, meant = (count_carried(carried, each) for each in (None, counted, expected))
        labels = {label: (raw[label], fed[label]) for label in raw}
        deviation["label"] = max((abs(fed[label] - meant[label]) for label in raw), default=0.0)
    return BalanceReport(
        names=strata.names,
        kind=strata.kind,
        by="draws" if weights is None else "weights",
        raw=strata.counts,
        target=wanted,
        expected=left,
        reached=reached,
        fewest=fewest,
        most=most,
        bounds=_bounds(strata),
        rows=len(numbers),
        draws=len(plan),
        distance=_distances(strata, raw=np.ones(len(numbers)), target=target, reached=counted),
        deviation=deviation,
        effective_rows=effective_rows(expected),
        largest_repeat=int(drawn.max()),
        largest_weight=1.0 if weights is None else float(weights.max()),
        never_drawn=int((drawn == 0).sum()),
        labels=labels,
        warnings=tuple(_warnings(strata, wanted, left, largest, by_weight=weights is not None, limit=limit)),
    )


def _by_stratum(strata: Strata, rows: Floats) -> Floats:
    """Return sums by stratum, rounded: a hundred shares of 50 may add up to 50.00000000000009."""
    return np.asarray(np.bincount(strata.numbers, rows).round(9), np.float64)


def _furthest(found: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(found - expected).max())


def _batch_deviation(plan: Plan, expected: Floats, batch_size: int) -> float:
    """Return the largest distance of a stratum's draws in a full batch from its share of it."""
    full = len(plan) // batch_size
    share = expected * batch_size / len(plan)
    cells = np.arange(full * batch_size) // batch_size * len(share) + plan.strata[: full * batch_size]
    cells, counts = np.unique(cells, return_counts=True)
    off = np.abs(counts - share[cells % len(share)]).max()
    lacking = np.bincount(cells % len(share), minlength=len(share)) < full  # in some batch
    return float(max(off, share[lacking].max(initial=0.0)))


def _distances(strata: Strata, *, raw: Floats, target: Floats, reached: Floats) -> dict[str, float]:
    found, kinds = {}, {"raw": raw, "reached": reached}
    for name, rows in kinds.items():
        if strata.values is not None:
            found[f"{name} to target"] = ks_distance(strata.values, first=rows, second=target)
        else:
            found[f"{name} to target"] = total_variation(*(_by_stratum(strata, each) for each in (rows, target)))
    if strata.values is not None and strata.edges is not None and strata.edges[-1] > strata.edges[0]:
        low, high = float(strata.edges[0]), float(strata.edges[-1])
        if np.isfinite(high - low):
            for name, rows in {**kinds, "target": target}.items():
                found[f"{name} to uniform"] = ks_to_uniform(strata.values, weights=rows, low=low, high=high)
    return found


def _bounds(strata: Strata) -> Floats | None:
    """Return the edges of each bin (strata, 2); a whole value has its bin around it."""
    if strata.places is None:
        return None
    if strata.edges is None:
        return np.stack([strata.places - 0.5, strata.places + 0.5], axis=1)
    places = strata.places.astype(np.int64)
    return np.stack([strata.edges[places], strata.edges[places + 1]], axis=1)


def _warnings(
    strata: Strata, target: Floats, expected: Floats, largest: Floats, *, by_weight: bool, limit: str
) -> list[str]:
    """Return what balancing asks too much of, worst first."""
    found, counts, several = [], strata.counts, "classes" if strata.kind == "class" else "bins"
    heavy = np.flatnonzero(largest >= _MANY)
    if len(heavy):
        first = heavy[np.argsort(-largest[heavy], kind="stable")][:_NAMED].tolist()
        told = "of weight {:.3g}" if by_weight else "drawn {:.3g} times an epoch"
        named = [
            f"the {strata.kind} {strata.names[k]} has {format_count(counts[k], 'row')}, "
            + ("" if counts[k] == 1 else "up to " if largest[k] > expected[k] / counts[k] + 1e-9 else "each ")
            + told.format(largest[k])
            for k in first
        ]
        rest = f"; {len(heavy) - len(first)} more {several} are like that" if len(heavy) > len(first) else ""
        less = "wider bins, smoothing, " if strata.kind == "bin" else ""
        cap = "cap" if by_weight else "max_repeats"
        found.append(f"{'; '.join(named)}{rest}: {less}a lower strength or {cap} would ask less of them")
    short = np.flatnonzero(expected < target - 1e-6)
    if limit and len(short):
        worst = short[np.argmin(expected[short] / target[short])]
        found.append(
            f"{limit} keeps {len(short)} of {len(counts)} {several} below their share: {strata.names[worst]} gets "
            f"{expected[worst]:.4g} of {target[worst]:.4g}; the others get the rest"
        )
    if strata.edges is not None and strata.edges[-1] > strata.edges[0] and len(counts) < len(strata.edges) - 1:
        empty = len(strata.edges) - 1 - len(counts)
        found.append(f"{empty} of {len(strata.edges) - 1} bins have no row: no balancing fills them")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return list(value) if isinstance(value, tuple) else value
