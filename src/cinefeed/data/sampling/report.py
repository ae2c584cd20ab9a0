"""The report of balancing: distributions before and after, distances, and warnings."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.text import format_count
from cinefeed.data.sampling.measure import effective_rows, ks_distance, ks_to_uniform, total_variation
from cinefeed.data.sampling.multilabel import LabelSets, count_labels
from cinefeed.data.sampling.order import Whole
from cinefeed.data.sampling.plan import Plan
from cinefeed.data.sampling.strata import Strata

Floats = NDArray[np.float64]
_MANY_DRAWS = 10  # draws of a row per epoch from which a network may memorize it, even with augmentation
_MAX_NAMES = 3  # strata in one warning


@dataclass(frozen=True, kw_only=True, eq=False)
class BalanceReport:
    """The effect of a sampler on the label distribution in one epoch.

    Arrays (strata,), one value per class or label bin:

    raw             number of rows
    target          draws according to the share of the stratum
    expected        target draws after applying `max_repeats` or `cap`
    reached         draws in the plan of this epoch, or sums of weights if balancing is `by` weights
    fewest, most    smallest and largest number of draws of a row
    bounds          (strata, 2), the edges of bins

    `distance` contains distances, 0 to 1, of "raw" and "reached" to the target: Kolmogorov-Smirnov for numbers, total
    variation for classes. For bins with edges, it also contains distances to the uniform distribution between the first
    and last edge, which are never 0 because labels are discrete. `deviation` is the largest difference, in draws,
    between this epoch and the expected draws of a row, a stratum, a stratum in a full batch, a group over all strata,
    or one label of multi-label rows.

    `effective_rows` is Kish's effective sample size of the expected draws. `largest_repeat` is the largest number of
    draws of a row, `never_drawn` the number of rows without a draw in this epoch, and `largest_weight` the largest
    weight (1 without weights). `labels` are rows and draws of each label if rows have several. `warnings` describe
    settings that repeat some rows too often or cannot be met.
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
        """Return the report as plain data for JSON."""
        return {item.name: _plain(getattr(self, item.name)) for item in fields(self)}

    def __str__(self) -> str:
        unit = "draws" if self.by == "draws" else "rows' weight"
        if len(self.names) > 6:
            distribution = (
                f"{len(self.names)} {'classes' if self.kind == 'class' else 'label bins'}, {self.raw.min()} to "
                f"{self.raw.max()} rows each -> {self.reached.min():.4g} to {self.reached.max():.4g} {unit}"
            )
        else:
            strata = zip(self.names, self.raw, self.reached, strict=True)
            distribution = ", ".join(f"{name} {raw} -> {reached:.4g}" for name, raw, reached in strata)
        largest = f"most drawn row {self.largest_repeat} times, {self.never_drawn} rows not drawn"
        if self.by == "weights":
            largest = f"largest weight {self.largest_weight:.3g}"
        size = f"effective sample size {self.effective_rows:,.1f}"
        summary = f"{self.rows} rows -> {self.draws} draws: {distribution}; {largest}; {size}"
        return "\n".join([summary, *(f"warning: {each}" for each in self.warnings)])


def make_report(
    *,
    strata: Strata,
    plan: Plan,
    target: Floats,
    expected: Floats,
    weights: Floats | None = None,
    groups: Whole | None = None,
    label_sets: LabelSets | None = None,
    batch_size: int | None = None,
    limit: str = "",
) -> BalanceReport:
    """Return the report of a plan.

    Args:
        strata: The strata of the rows.
        plan: The plan of the epoch.
        target: Draws of each row (rows,) before applying the limit.
        expected: Draws, or weights, of each row (rows,) after applying the limit.
        weights: Weight of each row (rows,) if balancing is by weights.
        groups: Group number of each row (rows,).
        label_sets: Labels of each row if rows have several.
        batch_size: Draws in a full batch, if batches are balanced.
        limit: The limit as "name=value", for warnings; empty without a limit.
    """
    numbers, count = strata.numbers, len(strata.names)
    draws = np.bincount(plan.rows, minlength=len(numbers))
    row_totals = draws.astype(np.float64) if weights is None else draws * weights
    stratum_target, stratum_expected, reached = (
        _by_stratum(strata, values) for values in (target, expected, row_totals)
    )
    fewest, most, largest = np.full(count, len(plan)), np.zeros(count, np.int64), np.zeros(count)
    np.minimum.at(fewest, numbers, draws)
    np.maximum.at(most, numbers, draws)
    np.maximum.at(largest, numbers, expected)
    deviation = {}
    if weights is None:
        deviation = {"row": _max_difference(draws, expected), "stratum": _max_difference(reached, stratum_expected)}
        if batch_size is not None and len(plan) >= batch_size:
            deviation["batch"] = _batch_deviation(plan, stratum_expected, batch_size)
        if groups is not None:
            deviation["group"] = _max_difference(np.bincount(groups, draws), np.bincount(groups, expected))
    labels: dict[str, tuple[float, float]] = {}
    if label_sets is not None:
        label_rows, label_draws, label_expected = (
            count_labels(label_sets, values) for values in (None, row_totals, expected)
        )
        labels = {label: (label_rows[label], label_draws[label]) for label in label_rows}
        differences = (abs(label_draws[label] - label_expected[label]) for label in label_rows)
        deviation["label"] = max(differences, default=0.0)
    return BalanceReport(
        names=strata.names,
        kind=strata.kind,
        by="draws" if weights is None else "weights",
        raw=strata.counts,
        target=stratum_target,
        expected=stratum_expected,
        reached=reached,
        fewest=fewest,
        most=most,
        bounds=_bounds(strata),
        rows=len(numbers),
        draws=len(plan),
        distance=_distances(strata, raw=np.ones(len(numbers)), target=target, reached=row_totals),
        deviation=deviation,
        effective_rows=effective_rows(expected),
        largest_repeat=int(draws.max()),
        largest_weight=1.0 if weights is None else float(weights.max()),
        never_drawn=int((draws == 0).sum()),
        labels=labels,
        warnings=tuple(
            _warnings(strata, stratum_target, stratum_expected, largest, by_weight=weights is not None, limit=limit)
        ),
    )


def _by_stratum(strata: Strata, rows: Floats) -> Floats:
    """Return sums by stratum, rounded, because rows with 50 draws in sum may add up to 50.00000000000009."""
    return np.asarray(np.bincount(strata.numbers, rows).round(9), np.float64)


def _max_difference(values: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(values - expected).max())


def _batch_deviation(plan: Plan, expected: Floats, batch_size: int) -> float:
    """Return the largest difference between the draws of a stratum in a full batch and its share of the batch."""
    full = len(plan) // batch_size
    share = expected * batch_size / len(plan)
    cells = np.arange(full * batch_size) // batch_size * len(share) + plan.strata[: full * batch_size]
    cells, counts = np.unique(cells, return_counts=True)
    difference = np.abs(counts - share[cells % len(share)]).max()
    is_missing = np.bincount(cells % len(share), minlength=len(share)) < full  # in some batch
    return float(max(difference, share[is_missing].max(initial=0.0)))


def _distances(strata: Strata, *, raw: Floats, target: Floats, reached: Floats) -> dict[str, float]:
    distances, distributions = {}, {"raw": raw, "reached": reached}
    for name, rows in distributions.items():
        if strata.values is not None:
            distances[f"{name} to target"] = ks_distance(strata.values, first=rows, second=target)
        else:
            distances[f"{name} to target"] = total_variation(*(_by_stratum(strata, each) for each in (rows, target)))
    if strata.values is not None and strata.edges is not None and strata.edges[-1] > strata.edges[0]:
        low, high = float(strata.edges[0]), float(strata.edges[-1])
        if np.isfinite(high - low):
            for name, rows in {**distributions, "target": target}.items():
                distances[f"{name} to uniform"] = ks_to_uniform(strata.values, weights=rows, low=low, high=high)
    return distances


def _bounds(strata: Strata) -> Floats | None:
    """Return the edges of each bin (strata, 2); the bin of an integer is centered on it."""
    if strata.places is None:
        return None
    if strata.edges is None:
        return np.stack([strata.places - 0.5, strata.places + 0.5], axis=1)
    places = strata.places.astype(np.int64)
    return np.stack([strata.edges[places], strata.edges[places + 1]], axis=1)


def _warnings(
    strata: Strata, target: Floats, expected: Floats, largest: Floats, *, by_weight: bool, limit: str
) -> list[str]:
    """Return warnings, the most important first."""
    warnings, counts, plural = [], strata.counts, "classes" if strata.kind == "class" else "bins"
    frequent = np.flatnonzero(largest >= _MANY_DRAWS)
    if len(frequent):
        first = frequent[np.argsort(-largest[frequent], kind="stable")][:_MAX_NAMES].tolist()
        template = "with a weight of {:.3g}" if by_weight else "drawn {:.3g} times per epoch"
        descriptions = [
            f"the {strata.kind} {strata.names[k]} has {format_count(counts[k], 'row')}, "
            + ("" if counts[k] == 1 else "up to " if largest[k] > expected[k] / counts[k] + 1e-9 else "each ")
            + template.format(largest[k])
            for k in first
        ]
        others = len(frequent) - len(first)
        rest = f"; {others} more {strata.kind + ' is' if others == 1 else plural + ' are'} similar" if others else ""
        bin_advice = "wider bins, smoothing, " if strata.kind == "bin" else ""
        limit_name = "cap" if by_weight else "max_repeats"
        warnings.append(
            f"{'; '.join(descriptions)}{rest}; to reduce this, use {bin_advice}a lower strength or {limit_name}"
        )
    short = np.flatnonzero(expected < target - 1e-6)
    if limit and len(short):
        worst = short[np.argmin(expected[short] / target[short])]
        warnings.append(
            f"{limit} keeps {len(short)} of {len(counts)} {plural} below their share: {strata.names[worst]} gets "
            f"{expected[worst]:.4g} of {target[worst]:.4g}; the other {plural} get the rest"
        )
    if strata.edges is not None and strata.edges[-1] > strata.edges[0] and len(counts) < len(strata.edges) - 1:
        empty = len(strata.edges) - 1 - len(counts)
        warnings.append(f"{empty} of {len(strata.edges) - 1} bins have no rows; balancing cannot fill them")
    return warnings


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return list(value) if isinstance(value, tuple) else value
