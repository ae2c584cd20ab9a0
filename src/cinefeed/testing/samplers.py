"""What every sampler must keep, cinefeed's own and a user's."""

import json
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.balance import Plan, Sampler
from cinefeed.errors import CinefeedError
from cinefeed.feed.ranks import Share
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
_EIGHT = 8  # batches, the most whose shares are exact together
_GLOBAL = 24  # draws of a global batch


def check_sampler(
    sampler: Sampler, *, labels: ArrayLike | None = None, groups: ArrayLike | None = None, epochs: int = 40
) -> None:
    """Check that a sampler keeps its promises, else raise AssertionError that names the broken one.

    expected:     expected draws are finite and add up to a whole number, which is the length of a plan
    exact:        each row and each stratum comes as often as expected, rounded down or up; `occurrence` counts repeats
    determinism:  the same address gives the same plan, the labels stay as they are
    coverage:     over the epochs each row comes as often as expected
    batches:      each full batch has the epoch's shares, rounded down or up (where per_batch is set)
    ranks:        1, 2 and 4 ranks take each draw once, and their global batches have the same composition, to one draw
                  (two in the last batches, less than eight a rank)
    weights:      they are finite, none is negative, and their mean is one
    report:       its numbers are those of the plan, and JSON

    `labels` (rows,) are what it is checked on, with `groups` (rows,) where it needs them. Without them some extreme
    ones are taken, of which a sampler may refuse some: with an error of cinefeed's, a ValueError or a TypeError. NaN
    and infinities it must refuse with a ValueError, as LabelError is one, unless labels make no difference to it.

    >>> from cinefeed.balance import BalancedClasses
    >>> check_sampler(BalancedClasses(), labels=["sick"] * 3 + ["well"] * 20)
    >>> check_sampler(BalancedClasses())
    """
    if labels is not None:
        _check(sampler, labels, groups, epochs, repr(sampler))
        return
    served = 0
    for name, extreme in _EXTREMES.items():
        alike = np.arange(len(extreme)) // 2 if sampler.group is not None else None
        try:
            sampler.expected_draws(extreme, groups=alike)
        except (CinefeedError, ValueError, TypeError):
            continue
        served += 1
        _check(sampler, extreme, alike, epochs, f"{sampler!r}, labels {name!r}")
    must(served > 0, f"{sampler!r} refuses every label there is; pass labels=")
    for value in (np.nan, np.inf, -np.inf):
        _check_refused(sampler, value)


def _check(sampler: Sampler, labels: ArrayLike, groups: ArrayLike | None, epochs: int, case: str) -> None:
    given: dict[str, Any] = {} if groups is None else {"groups": groups}
    before = np.array(labels, copy=True) if isinstance(labels, np.ndarray) else None
    expected, strata = sampler.expected_draws(labels, **given), sampler.strata(labels).numbers
    rows = len(strata)
    must(expected.shape == (rows,), f"{case}: expected draws are {expected.shape}, the labels ({rows},)")
    must(bool((np.isfinite(expected) & (expected >= 0)).all()), f"{case}: expected draws are negative or not finite")
    must(abs(expected.sum() - round(expected.sum())) < 1e-6, f"{case}: expected draws add up to {expected.sum()}")
    must(np.array_equal(np.unique(strata), np.arange(strata.max() + 1)), f"{case}: strata are not numbered from 0")
    total = np.zeros(rows)
    for epoch in range(epochs):
        address: dict[str, Any] = {"seed": 5, "epoch": epoch, "batch_size": None if epoch % 2 else 7}
        plan, again = (sampler.plan(labels, **address, **given) for _ in range(2))
        where = f"{case}, epoch {epoch}, batch_size {address['batch_size']}"
        must(np.array_equal(plan.rows, again.rows), f"{where}: a second time gave another plan")
        total += _check_plan(plan, expected, strata, where)
        if address["batch_size"] is not None and _composes(sampler):
            _check_blocks(plan, expected, strata, size=7, most=1.0, what=f"{where}: a batch")
    off = float(np.abs(total / epochs - expected).max())
    must(off < 6 / epochs, f"{case}: over {epochs} epochs a row is {off:.2f} draws an epoch off")
    for world_size in (1, 2, 4):
        _check_ranks(sampler, labels, given, expected, strata, world_size, case)
    _check_weights(sampler, labels, given, rows, case)
    _check_report(sampler, labels, given, expected, case)
    must(before is None or np.array_equal(before, np.asarray(labels)), f"{case}: the labels were changed")


def _composes(sampler: Sampler) -> bool:
    """Return whether batches carry the shares of the strata."""
    return sampler.per_batch and sampler.by == "draws"


def _check_plan(plan: Plan, expected: NDArray[np.float64], strata: NDArray[np.int64], where: str) -> Any:
    """Check one epoch, and return the draws of each row."""
    must(len(plan) == round(expected.sum()), f"{where}: {len(plan)} draws, expected were {expected.sum():g}")
    for name in ("rows", "occurrence", "strata"):
        array = getattr(plan, name)
        must(array.dtype == np.int64 and array.shape == (len(plan),), f"{where}: {name} is {array.dtype} {array.shape}")
    must(np.array_equal(plan.strata, strata[plan.rows]), f"{where}: strata do not belong to the rows")
    drawn = np.bincount(plan.rows, minlength=len(expected))
    _check_rounded(drawn, expected, f"{where}: a row")
    _check_rounded(np.bincount(strata, drawn), np.bincount(strata, expected), f"{where}: a stratum")
    order = np.argsort(plan.rows, kind="stable")
    first = np.repeat(np.cumsum(drawn) - drawn, drawn)
    must(
        np.array_equal(plan.occurrence[order], np.arange(len(plan)) - first),
        f"{where}: occurrence does not count how often a row came before",
    )
    return drawn


def _check_rounded(drawn: NDArray[Any], expected: NDArray[Any], what: str) -> None:
    must(bool((drawn >= np.floor(expected + 1e-6)).all()), f"{what} is drawn less than expected")
    must(bool((drawn <= np.ceil(expected - 1e-6)).all()), f"{what} is drawn more than expected")


def _check_blocks(plan: Plan, expected: Any, strata: Any, *, size: int, most: float, what: str, skip: int = 0) -> None:
    """Check that each whole run of `size` draws, the first `skip` left out, has the epoch's shares to `most` draws."""
    shares = np.bincount(strata, expected) * size / len(plan)
    for start in range(skip, len(plan) - size + 1, size):
        counts = np.bincount(plan.strata[start : start + size], minlength=len(shares))
        off = float(np.abs(counts - shares).max())
        must(off < most - 1e-9 or off < 1e-9, f"{what} is {off:.2f} draws off its share, from draw {start}")


def _check_ranks(
    sampler: Sampler, labels: Any, given: Any, expected: Any, strata: Any, world_size: int, case: str
) -> None:
    size = _GLOBAL // world_size
    plan = sampler.plan(labels, seed=5, epoch=1, batch_size=size, **given)
    shares = [Share(size, rank, world_size) for rank in range(world_size)]
    where, taken = f"{case}, {world_size} ranks", np.zeros(len(plan), np.int64)
    for index in range(shares[0].count(len(plan))):
        for share in shares:
            positions, _ = share.positions(index, draws=len(plan))
            taken[positions.start : positions.stop] += 1
    must(bool((taken == 1).all()), f"{where}: a draw is nobody's, or of several")
    if _composes(sampler):
        whole = len(plan) // (_EIGHT * size) * _EIGHT * size  # draws in whole eights of batches
        head = Plan(rows=plan.rows[:whole], occurrence=plan.occurrence[:whole], strata=plan.strata[:whole])
        what = f"{where}: a global batch"
        if whole:
            _check_blocks(head, expected * whole / len(plan), strata, size=_GLOBAL, most=1.0, what=what)
        _check_blocks(plan, expected, strata, size=_GLOBAL, most=2.0 if world_size > 1 else 1.0, what=what, skip=whole)


def _check_weights(sampler: Sampler, labels: Any, given: Any, rows: int, case: str) -> None:
    weights = sampler.sample_weights(labels, **given)
    if weights is not None:
        must(weights.shape == (rows,) and weights.dtype == np.float32, f"{case}: weights are not float32 ({rows},)")
        must(bool((np.isfinite(weights) & (weights >= 0)).all()), f"{case}: weights are negative or not finite")
        mean = float(weights.mean(dtype=np.float64))
        must(abs(mean - 1) < 1e-4, f"{case}: the mean weight is {mean:.4g}, not 1")


def _check_report(sampler: Sampler, labels: Any, given: Any, expected: Any, case: str) -> None:
    report = sampler.report(labels, seed=5, epoch=1, **given)
    drawn = np.bincount(sampler.plan(labels, seed=5, epoch=1, **given).rows, minlength=len(expected))
    told = (report.rows, report.draws, report.largest_repeat, report.never_drawn)
    found = (len(expected), int(drawn.sum()), int(drawn.max()), int((drawn == 0).sum()))
    must(told == found, f"{case}: the report says rows, draws, largest repeat, never drawn {told}, they are {found}")
    kept = report.as_dict()
    try:
        again = json.loads(json.dumps(kept, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{case}: the report is no JSON: {error}") from error
    must(again["raw"] == kept["raw"], f"{case}: the report differs after it was kept as JSON")


def _check_refused(sampler: Sampler, value: float) -> None:
    """Check that a label that is no number is refused, unless labels make no difference."""
    alike = {} if sampler.group is None else {"groups": np.arange(6)}
    try:
        found = sampler.expected_draws([1.0, 1.0, 1.0, 2.0, 2.0, value], **alike)
    except ValueError:
        return
    others = [sampler.expected_draws([1.0, 1.0, 1.0, 2.0, 2.0, other], **alike) for other in (1.0, 2.0)]
    must(all(np.array_equal(found, each) for each in others), f"{sampler!r}: a label that is {value} is not refused")
