"""Conformance check for samplers, built-in or custom."""

import json
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.core.errors import CinefeedError
from cinefeed.data.sampling import Plan, Sampler
from cinefeed.feed.shard import ShardPositions
from cinefeed.testing.sources import must

_EXTREMES: dict[str, Any] = {
    "one row": [5.5],
    "all alike": np.full(9, 3.0),
    "one rare": np.append(np.zeros(50), 1.0),
    "huge ties": np.repeat([0.0, 1.0, 2.0, 7.0], [500, 1, 2, 1]),
    "each its own": np.arange(40.0) ** 1.5,
    "whole": np.arange(120) % 17 % 7,
    "very large and small": [-1e300, 1e300, 0.0, 5e-324, 1.0, 1.0],
    "text": ["well"] * 30 + ["sick"] * 3 + ["unsure"],
    "booleans": [True] * 3 + [False] * 20,
}
_EIGHT = 8  # consecutive batches with exact shares
_GLOBAL = 24  # draws of a global batch


def check_sampler(
    sampler: Sampler, *, labels: ArrayLike | None = None, groups: ArrayLike | None = None, epochs: int = 40
) -> None:
    """Check that a sampler has all documented properties, else raise AssertionError that names the failed check.

    expected:     expected draws are finite, and their sum is a whole number, the length of a plan
    exact:        rows and strata are drawn as often as expected, rounded down or up; `occurrence` counts repeats
    determinism:  the same address gives the same plan; the labels are not modified
    coverage:     over the epochs, each row is drawn as often as expected
    batches:      each full batch has the shares of the epoch, rounded down or up (if per_batch is set)
    ranks:        1, 2 and 4 ranks take each draw once, and their global batches have the same composition, to one draw
                  (two in the last batches, fewer than eight per rank)
    weights:      all are finite and at least 0, and their mean is one
    report:       its numbers are those of the plan, and are JSON

    Args:
        sampler: the sampler to check.
        labels: (rows,) labels for the check. By default several extreme ones are used. A sampler may reject some of
            these with an error of cinefeed, a ValueError or a TypeError. It must reject NaN and infinities with a
            ValueError (such as LabelError), unless it ignores labels.
        groups: (rows,) groups, if the sampler needs them.
        epochs: number of epochs for the coverage.

    >>> from cinefeed.data.sampling import BalancedClasses
    >>> check_sampler(BalancedClasses(), labels=["sick"] * 3 + ["well"] * 20)
    >>> check_sampler(BalancedClasses())
    """
    if labels is not None:
        _check(sampler, labels, groups, epochs, repr(sampler))
        return
    num_supported = 0
    for name, extreme in _EXTREMES.items():
        extreme_groups = np.arange(len(extreme)) // 2 if sampler.group is not None else None
        try:
            sampler.expected_draws(extreme, groups=extreme_groups)
        except (CinefeedError, ValueError, TypeError):
            continue
        num_supported += 1
        _check(sampler, extreme, extreme_groups, epochs, f"{sampler!r}, labels {name!r}")
    must(num_supported > 0, f"{sampler!r} rejects all labels of the check; pass labels=")
    for value in (np.nan, np.inf, -np.inf):
        _check_rejection(sampler, value)


def _check(sampler: Sampler, labels: ArrayLike, groups: ArrayLike | None, epochs: int, case: str) -> None:
    group_kwargs: dict[str, Any] = {} if groups is None else {"groups": groups}
    before = np.array(labels, copy=True) if isinstance(labels, np.ndarray) else None
    expected, strata = sampler.expected_draws(labels, **group_kwargs), sampler.strata(labels).numbers
    rows = len(strata)
    must(expected.shape == (rows,), f"{case}: expected draws are {expected.shape}, the labels ({rows},)")
    must(bool((np.isfinite(expected) & (expected >= 0)).all()), f"{case}: expected draws are negative or not finite")
    must(abs(expected.sum() - round(expected.sum())) < 1e-6, f"{case}: the sum of expected draws is {expected.sum()}")
    must(np.array_equal(np.unique(strata), np.arange(strata.max() + 1)), f"{case}: strata are not numbered from 0")
    total = np.zeros(rows)
    for epoch in range(epochs):
        address: dict[str, Any] = {"seed": 5, "epoch": epoch, "batch_size": None if epoch % 2 else 7}
        plan, second_plan = (sampler.plan(labels, **address, **group_kwargs) for _ in range(2))
        context = f"{case}, epoch {epoch}, batch_size {address['batch_size']}"
        must(np.array_equal(plan.rows, second_plan.rows), f"{context}: a second call gave another plan")
        total += _check_plan(plan, expected, strata, context)
        if address["batch_size"] is not None and _composes(sampler):
            _check_blocks(plan, expected, strata, size=7, max_deviation=1.0, unit=f"{context}: a batch")
    deviation = float(np.abs(total / epochs - expected).max())
    must(deviation < 6 / epochs, f"{case}: over {epochs} epochs a row deviates by {deviation:.2f} draws per epoch")
    for world_size in (1, 2, 4):
        _check_ranks(sampler, labels, group_kwargs, expected, strata, world_size, case)
    _check_weights(sampler, labels, group_kwargs, rows, case)
    _check_report(sampler, labels, group_kwargs, expected, case)
    must(before is None or np.array_equal(before, np.asarray(labels)), f"{case}: the labels were changed")


def _composes(sampler: Sampler) -> bool:
    """Return whether each batch has the shares of the strata."""
    return sampler.per_batch and sampler.by == "draws"


def _check_plan(plan: Plan, expected: NDArray[np.float64], strata: NDArray[np.int64], where: str) -> Any:
    """Check one epoch, and return the number of draws of each row."""
    must(len(plan) == round(expected.sum()), f"{where}: {len(plan)} draws, expected {expected.sum():g}")
    for name in ("rows", "occurrence", "strata"):
        array = getattr(plan, name)
        must(array.dtype == np.int64 and array.shape == (len(plan),), f"{where}: {name} is {array.dtype} {array.shape}")
    must(np.array_equal(plan.strata, strata[plan.rows]), f"{where}: strata are not those of the rows")
    counts = np.bincount(plan.rows, minlength=len(expected))
    _check_rounded(counts, expected, f"{where}: a row")
    _check_rounded(np.bincount(strata, counts), np.bincount(strata, expected), f"{where}: a stratum")
    order = np.argsort(plan.rows, kind="stable")
    first = np.repeat(np.cumsum(counts) - counts, counts)
    must(
        np.array_equal(plan.occurrence[order], np.arange(len(plan)) - first),
        f"{where}: occurrence does not count the earlier draws of a row",
    )
    return counts


def _check_rounded(counts: NDArray[Any], expected: NDArray[Any], unit: str) -> None:
    must(bool((counts >= np.floor(expected + 1e-6)).all()), f"{unit} is drawn less often than expected")
    must(bool((counts <= np.ceil(expected - 1e-6)).all()), f"{unit} is drawn more often than expected")


def _check_blocks(
    plan: Plan, expected: Any, strata: Any, *, size: int, max_deviation: float, unit: str, skip: int = 0
) -> None:
    """Check that each block of `size` draws after `skip` has the epoch's shares, to within `max_deviation` draws."""
    shares = np.bincount(strata, expected) * size / len(plan)
    for start in range(skip, len(plan) - size + 1, size):
        counts = np.bincount(plan.strata[start : start + size], minlength=len(shares))
        deviation = float(np.abs(counts - shares).max())
        must(
            deviation < max_deviation - 1e-9 or deviation < 1e-9,
            f"{unit} deviates by {deviation:.2f} draws from its share, from draw {start}",
        )


def _check_ranks(
    sampler: Sampler, labels: Any, group_kwargs: Any, expected: Any, strata: Any, world_size: int, case: str
) -> None:
    size = _GLOBAL // world_size
    plan = sampler.plan(labels, seed=5, epoch=1, batch_size=size, **group_kwargs)
    shares = [ShardPositions(size, rank, world_size) for rank in range(world_size)]
    where, ranks_per_draw = f"{case}, {world_size} ranks", np.zeros(len(plan), np.int64)
    for index in range(shares[0].count(len(plan))):
        for share in shares:
            positions, _ = share.positions(index, draws=len(plan))
            ranks_per_draw[positions.start : positions.stop] += 1
    must(bool((ranks_per_draw == 1).all()), f"{where}: a draw belongs to no rank, or to several")
    if _composes(sampler):
        num_exact = len(plan) // (_EIGHT * size) * _EIGHT * size  # draws in whole runs of eight batches
        head = Plan(rows=plan.rows[:num_exact], occurrence=plan.occurrence[:num_exact], strata=plan.strata[:num_exact])
        unit = f"{where}: a global batch"
        if num_exact:
            _check_blocks(head, expected * num_exact / len(plan), strata, size=_GLOBAL, max_deviation=1.0, unit=unit)
        _check_blocks(
            plan,
            expected,
            strata,
            size=_GLOBAL,
            max_deviation=2.0 if world_size > 1 else 1.0,
            unit=unit,
            skip=num_exact,
        )


def _check_weights(sampler: Sampler, labels: Any, group_kwargs: Any, rows: int, case: str) -> None:
    weights = sampler.sample_weights(labels, **group_kwargs)
    if weights is not None:
        must(weights.shape == (rows,) and weights.dtype == np.float32, f"{case}: weights are not float32 ({rows},)")
        must(bool((np.isfinite(weights) & (weights >= 0)).all()), f"{case}: weights are negative or not finite")
        mean = float(weights.mean(dtype=np.float64))
        must(abs(mean - 1) < 1e-4, f"{case}: the mean weight is {mean:.4g}, not 1")


def _check_report(sampler: Sampler, labels: Any, group_kwargs: Any, expected: Any, case: str) -> None:
    report = sampler.report(labels, seed=5, epoch=1, **group_kwargs)
    counts = np.bincount(sampler.plan(labels, seed=5, epoch=1, **group_kwargs).rows, minlength=len(expected))
    report_numbers = (report.rows, report.draws, report.largest_repeat, report.never_drawn)
    plan_numbers = (len(expected), int(counts.sum()), int(counts.max()), int((counts == 0).sum()))
    names = "rows, draws, largest repeat, never drawn"
    must(report_numbers == plan_numbers, f"{case}: the report has {names} {report_numbers}, the plan {plan_numbers}")
    fields = report.as_dict()
    try:
        json_fields = json.loads(json.dumps(fields, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{case}: the report is not JSON: {error}") from error
    must(json_fields["raw"] == fields["raw"], f"{case}: the report differs after writing and reading it as JSON")


def _check_rejection(sampler: Sampler, value: float) -> None:
    """Check that a label that is NaN or infinite is rejected, unless the sampler ignores labels."""
    group_kwargs = {} if sampler.group is None else {"groups": np.arange(6)}
    try:
        expected_draws = sampler.expected_draws([1.0, 1.0, 1.0, 2.0, 2.0, value], **group_kwargs)
    except ValueError:
        return
    others = [sampler.expected_draws([1.0, 1.0, 1.0, 2.0, 2.0, other], **group_kwargs) for other in (1.0, 2.0)]
    must(
        all(np.array_equal(expected_draws, each) for each in others),
        f"{sampler!r}: a label that is {value} is not rejected",
    )
