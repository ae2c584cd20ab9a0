"""Samplers: which strata there are, and what share of an epoch each one gets."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.balance.plan import Plan, draw
from cinefeed.balance.strata import Bins, Strata, bin_strata, check_bins, class_name, class_strata, label_array
from cinefeed.errors import LabelError, SettingError, did_you_mean

Length = Literal["natural", "max_count"] | int


@dataclass(frozen=True, kw_only=True, eq=False)
class BalanceReport:
    """What a sampler makes of some labels in one epoch: what a summary says and a page shows.

    `raw`, `expected` and `fed` are draws by stratum (strata,): of the labels as they are, as the sampler wants them,
    and as the plan has them. `largest_repeat` is how often the most drawn row comes; `never_drawn` counts rows left out
    of this epoch.
    """

    names: tuple[str, ...]
    raw: NDArray[np.int64]
    expected: NDArray[np.float64]
    fed: NDArray[np.int64]
    largest_repeat: int
    never_drawn: int

    def __str__(self) -> str:
        rows, draws = int(self.raw.sum()), int(self.fed.sum())
        parts = ", ".join(f"{n} {r} -> {f}" for n, r, f in zip(self.names, self.raw, self.fed, strict=True))
        if len(self.names) > 6:
            parts = (
                f"{len(self.names)} label bins, {self.raw.min()} to {self.raw.max()} rows each"
                f" -> {self.fed.min()} to {self.fed.max()} draws"
            )
        return (
            f"{rows} rows -> {draws} draws: {parts}; most drawn row {self.largest_repeat} times, "
            f"{self.never_drawn} rows not drawn this epoch"
        )


class Sampler(ABC):
    """A rule that says how often each row is expected in an epoch. A new one says its strata and their shares."""

    length: Length

    @abstractmethod
    def strata(self, labels: ArrayLike) -> Strata:
        """Return the class or label bin of each row. Raises LabelError where these labels cannot be balanced."""

    @abstractmethod
    def shares(self, strata: Strata) -> NDArray[np.float64]:
        """Return the share of the epoch that each stratum gets, float64 (strata,), one in sum."""

    def expected_draws(self, labels: ArrayLike) -> NDArray[np.float64]:
        """Return how often each row is expected in an epoch, float64 (rows,); rows of one stratum are alike.

        >>> UniformLabels().expected_draws([60, 60, 60, 35]).round(2).tolist()
        [0.67, 0.67, 0.67, 2.0]
        """
        strata = self.strata(labels)
        return np.asarray((self._draws(strata) / strata.counts)[strata.numbers])

    def _draws(self, strata: Strata) -> NDArray[np.float64]:
        """Return the expected draws of each stratum, whole in sum."""
        shares, counts = self.shares(strata), strata.counts
        draws = float(len(strata.numbers))
        if self.length == "max_count":
            draws = round(float((counts[shares > 0] / shares[shares > 0]).max()))
        elif self.length != "natural":
            draws = self.length
        return np.asarray(draws * shares)

    def plan(self, labels: ArrayLike, *, seed: int = 0, epoch: int = 0, batch_size: int | None = None) -> Plan:
        """Return the exact draws of one epoch, in order; with `batch_size`, every full batch has the epoch's shares.

        >>> plan = BalancedClasses().plan(["sick"] * 2 + ["well"] * 6, batch_size=4)
        >>> plan.strata.reshape(2, 4).sum(axis=1).tolist()
        [2, 2]
        """
        strata = self.strata(labels)
        return draw(
            (self._draws(strata) / strata.counts)[strata.numbers],
            strata=strata.numbers,
            values=strata.values,
            seed=seed,
            epoch=epoch,
            batch_size=batch_size,
        )

    def report(self, labels: ArrayLike, *, seed: int = 0, epoch: int = 0) -> BalanceReport:
        """Return what the sampler makes of these labels in one epoch.

        >>> print(BalancedClasses(length="max_count").report(["sick"] * 2 + ["well"] * 6))
        8 rows -> 12 draws: sick 2 -> 6, well 6 -> 6; most drawn row 3 times, 0 rows not drawn this epoch
        """
        strata = self.strata(labels)
        plan = self.plan(labels, seed=seed, epoch=epoch)
        drawn = np.bincount(plan.rows, minlength=len(strata.numbers))
        return BalanceReport(
            names=strata.names,
            raw=strata.counts,
            expected=self._draws(strata),
            fed=np.bincount(plan.strata, minlength=len(strata.names)).astype(np.int64),
            largest_repeat=int(drawn.max()),
            never_drawn=int((drawn == 0).sum()),
        )


@dataclass(frozen=True, kw_only=True)
class Natural(Sampler):
    """Every row once an epoch, shuffled anew each time; `shuffle=False` keeps the order of the table.

    >>> sorted(Natural().plan([3, 1, 2]).rows.tolist())
    [0, 1, 2]
    """

    shuffle: bool = True

    @property
    def length(self) -> Length:  # type: ignore[override]  # a field elsewhere, fixed here
        """Always the natural one."""
        return "natural"

    def strata(self, labels: ArrayLike) -> Strata:
        """Return one stratum that holds every row."""
        rows = len(np.asarray(labels))
        if rows == 0:
            label_array(labels)
        return Strata(np.zeros(rows, np.int64), ("all",))

    def shares(self, strata: Strata) -> NDArray[np.float64]:
        """Return the whole epoch for the one stratum."""
        return np.ones(len(strata.names))

    def plan(self, labels: ArrayLike, *, seed: int = 0, epoch: int = 0, batch_size: int | None = None) -> Plan:
        """Return every row once, in an order drawn for this epoch, or in that of the table."""
        if self.shuffle:
            return super().plan(labels, seed=seed, epoch=epoch, batch_size=batch_size)
        rows = len(self.strata(labels).numbers)
        nought = np.zeros(rows, np.int64)
        return Plan(rows=np.arange(rows), occurrence=nought, strata=nought)

    def __str__(self) -> str:
        return "every video once an epoch" + ("" if self.shuffle else ", in the order of the table")


@dataclass(frozen=True, kw_only=True)
class BalancedClasses(Sampler):
    """Every class with a share of its own, equal unless `proportion` says otherwise, in the epoch and each full batch.

    `proportion` is the share of the positive class (the last in sorted order) of two, or a share for each class, one in
    sum; a class with 0 is left out. `strength` goes from 0, as the labels are, to 1, the shares asked for. `length` is
    the draws of an epoch: "natural" is the number of rows; "max_count" just enough that no row need be left out, so
    that with equal shares each class comes as often as the most frequent one.

    >>> BalancedClasses(proportion=0.25, length=8).expected_draws([True, False, False]).tolist()
    [2.0, 3.0, 3.0]
    """

    proportion: float | Mapping[str, float] | None = None
    strength: float = 1.0
    length: Length = "natural"

    def __post_init__(self) -> None:
        _check(self.length, self.strength, "BalancedClasses")
        if isinstance(self.proportion, Mapping):
            shares = {class_name(key): float(share) for key, share in self.proportion.items()}
            if not all(0 <= share <= 1 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
                raise SettingError(
                    f"BalancedClasses(proportion={shares}): shares must lie from 0 to 1 and add up to 1; "
                    f"these add up to {sum(shares.values()):g}"
                )
            object.__setattr__(self, "proportion", shares)
        elif self.proportion is not None and not 0 < self.proportion < 1:
            raise SettingError(f"BalancedClasses(proportion={self.proportion}) must lie between 0 and 1")

    def strata(self, labels: ArrayLike) -> Strata:
        """Return the class of each row, numbered in sorted order. Raises LabelError where there is one class only."""
        strata = class_strata(labels)
        if len(strata.names) == 1:
            raise LabelError(
                f"all {len(strata.numbers)} labels are {strata.names[0]!r}: one class cannot be balanced; "
                "look at the filter and the split before it, or take Natural()"
            )
        return strata

    def shares(self, strata: Strata) -> NDArray[np.float64]:
        """Return the share of each class. Raises SettingError where `proportion` does not fit the classes."""
        names = strata.names
        target = np.full(len(names), 1 / len(names))
        if isinstance(self.proportion, Mapping):
            for name in self.proportion:
                if name not in names:
                    raise SettingError(
                        f"proportion has a share for {name!r}, no label has it; {did_you_mean(name, names)}"
                    )
            missing = [name for name in names if name not in self.proportion]
            if missing:
                raise SettingError(f"proportion has no share for {', '.join(missing)}; give 0 to leave a class out")
            target = np.array([self.proportion[name] for name in names])
        elif self.proportion is not None:
            if len(names) != 2:
                raise SettingError(
                    f"proportion={self.proportion} is one share, for two classes; there are {len(names)}: "
                    f"{', '.join(names[:8])}; give proportion={{class: share}}"
                )
            target = np.array([1 - self.proportion, self.proportion])
        return _mix(target, strata, self.strength)

    def __str__(self) -> str:
        if isinstance(self.proportion, Mapping):
            shares = ", ".join(f"{name} {share:.0%}" for name, share in self.proportion.items())
        else:
            shares = "in equal shares" if self.proportion is None else f"{self.proportion:.0%} positive"
        return f"classes {shares}{_rest(self.strength, self.length)}"


@dataclass(frozen=True, kw_only=True)
class UniformLabels(Sampler):
    """Every label value, or bin of values, equally often: for regression.

    `bins` is "auto" (whole labels: each value its own bin; else equal bins, the Rice rule), "integer", a number of
    equal bins, or edges. Empty bins get nothing. `strength` and `length` are as in BalancedClasses: with whole labels
    and length="max_count" each value comes as often as the most frequent one, the 2020 system's rule.

    >>> plan = UniformLabels(length="max_count").plan([60, 60, 60, 35])
    >>> np.bincount(plan.rows).tolist()
    [1, 1, 1, 3]
    """

    bins: Bins = "auto"
    strength: float = 1.0
    length: Length = "natural"

    def __post_init__(self) -> None:
        _check(self.length, self.strength, "UniformLabels")
        object.__setattr__(self, "bins", check_bins(self.bins))

    def strata(self, labels: ArrayLike) -> Strata:
        """Return the bin of each row's label, in rising order."""
        return bin_strata(labels, bins=self.bins)

    def shares(self, strata: Strata) -> NDArray[np.float64]:
        """Return the same share for each bin that has a row."""
        return _mix(np.full(len(strata.names), 1 / len(strata.names)), strata, self.strength)

    def __str__(self) -> str:
        if self.bins == "auto":
            what = "label values or bins"
        elif isinstance(self.bins, tuple):
            what = f"{len(self.bins) - 1} label bins"
        else:
            what = "whole label values" if self.bins == "integer" else f"{self.bins} label bins"
        return f"{what} equally often{_rest(self.strength, self.length)}"


def _mix(target: NDArray[np.float64], strata: Strata, strength: float) -> NDArray[np.float64]:
    """Return shares between the natural ones and the target, one in sum."""
    shares = strength * target + (1 - strength) * strata.counts / len(strata.numbers)
    return np.asarray(shares / math.fsum(shares))  # np.sum adds in an order of the machine's


def _check(length: object, strength: float, owner: str) -> None:
    if isinstance(length, str):
        if length not in ("natural", "max_count"):
            raise SettingError(f"{owner}(length={length!r}): {did_you_mean(length, ('natural', 'max_count'))}")
    elif isinstance(length, bool) or not isinstance(length, int | np.integer) or length < 1:
        raise SettingError(f"{owner}(length={length!r}) must be 'natural', 'max_count' or a whole number of draws")
    if not 0 <= strength <= 1:
        raise SettingError(f"{owner}(strength={strength!r}) must lie from 0 (natural) to 1 (fully balanced)")


def _rest(strength: float, length: Length) -> str:
    part = "" if strength == 1 else f", strength {strength:g}"
    lengths = {"natural": "", "max_count": ", every one as often as the most frequent"}
    return part + (lengths[length] if isinstance(length, str) else f", {length} draws an epoch")


def class_weights(labels: ArrayLike) -> dict[object, float]:
    """Return the weight of each class that makes all classes count alike, with mean one over the rows.

    The weight of a class is rows / (classes x its rows): scikit-learn's "balanced".

    >>> class_weights(["sick", "well", "well", "well"])
    {'sick': 2.0, 'well': 0.6666666666666666}
    """
    values, counts = np.unique(label_array(labels), return_counts=True)
    weights = counts.sum() / (len(values) * counts)
    return dict(zip(values.tolist(), weights.tolist(), strict=True))
