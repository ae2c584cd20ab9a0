"""The samplers: which strata there are, and what share of an epoch each one gets."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.balance.plan import Plan
from cinefeed.balance.rarest import Carried, carried_labels, rarest_strata
from cinefeed.balance.sampler import Balancing, Sampler
from cinefeed.balance.shares import smoothed_counts
from cinefeed.balance.strata import Bins, Strata, bin_strata, check_bins, class_strata, label_array
from cinefeed.errors import LabelError, SettingError, did_you_mean
from cinefeed.label_types import class_name

_WIDEST = 100.0  # bins: a wider kernel is nearly flat over any labels, and costs time


@dataclass(frozen=True, kw_only=True)
class Natural(Sampler):
    """Every row once an epoch, shuffled anew each time; `shuffle=False` keeps the order of the table.

    >>> sorted(Natural().plan([3, 1, 2]).rows.tolist())
    [0, 1, 2]
    """

    shuffle: bool = True

    def strata(self, labels: ArrayLike) -> Strata:
        """Return one stratum that holds every row."""
        rows = len(np.asarray(labels))
        if rows == 0:
            label_array(labels)
        return Strata(np.zeros(rows, np.int64), ("all",))

    def shares(self, strata: Strata) -> NDArray[np.float64]:
        """Return the whole epoch for the one stratum."""
        return np.ones(len(strata.names))

    def plan(
        self,
        labels: ArrayLike,
        *,
        seed: int = 0,
        epoch: int = 0,
        batch_size: int | None = None,
        groups: ArrayLike | None = None,
    ) -> Plan:
        """Return every row once, in an order drawn for this epoch, or in that of the table."""
        if self.shuffle:
            return super().plan(labels, seed=seed, epoch=epoch, batch_size=batch_size, groups=groups)
        rows = len(self.strata(labels).numbers)
        nought = np.zeros(rows, np.int64)
        return Plan(rows=np.arange(rows), occurrence=nought, strata=nought)

    def __str__(self) -> str:
        return "every video once an epoch" + ("" if self.shuffle else ", in the order of the table")


@dataclass(frozen=True, kw_only=True)
class BalancedClasses(Balancing):
    """Every class with a share of its own, equal unless `proportion` says otherwise, in the epoch and each full batch.

    `proportion` is the share of the positive class (the last in sorted order) of two, or a share for each class, one in
    sum; a class with 0 is left out. Rows that carry several labels, lists of them or text parted by `separator`, count
    to the rarest one that they carry; those that carry none are a class "none". The other settings are those of
    Balancing.

    >>> BalancedClasses(proportion=0.25, length=8).expected_draws([True, False, False]).tolist()
    [2.0, 3.0, 3.0]
    >>> sampler = BalancedClasses(separator=";")
    >>> sampler.expected_draws(["edema", "edema", "edema;effusion", "edema"]).round(2).tolist()
    [0.67, 0.67, 2.0, 0.67]
    """

    proportion: float | Mapping[str, float] | None = None
    separator: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.separator == "":
            raise SettingError("BalancedClasses(separator='') parts nothing; name the text between labels, such as ';'")
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
        carried = self._carried(labels)
        strata = class_strata(labels) if carried is None else rarest_strata(carried)
        if len(strata.names) == 1:
            raise LabelError(
                f"all {len(strata.numbers)} labels are {strata.names[0]!r}: one class cannot be balanced; "
                "look at the filter and the split before it, or take Natural()"
            )
        return strata

    def _carried(self, labels: ArrayLike) -> Carried | None:
        return carried_labels(labels, separator=self.separator)

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
        return self._mixed(target, strata)

    def __str__(self) -> str:
        if isinstance(self.proportion, Mapping):
            shares = ", ".join(f"{name} {share:.0%}" for name, share in self.proportion.items())
        else:
            shares = "in equal shares" if self.proportion is None else f"{self.proportion:.0%} positive"
        return f"classes {shares}{self._rest()}"


@dataclass(frozen=True, kw_only=True)
class UniformLabels(Balancing):
    """Every label value, or bin of values, equally often: for regression.

    `bins` is "auto" (whole labels: each value its own bin; else equal bins, the Rice rule), "integer", a number of
    equal bins, or edges. Empty bins get nothing. With whole labels and length="max_count" each value comes as often as
    the most frequent one, the 2020 system's rule. `smoothing`, in bins, is the standard deviation of a Gaussian: a row
    then comes as often as it is rare among its neighbours too, in inverse proportion to the smoothed count (label
    distribution smoothing, Yang et al., ICML 2021, whose own width is 2). The other settings are those of Balancing.

    >>> plan = UniformLabels(length="max_count").plan([60, 60, 60, 35])
    >>> np.bincount(plan.rows).tolist()
    [1, 1, 1, 3]
    """

    bins: Bins = "auto"
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "bins", check_bins(self.bins))
        if not 0 <= self.smoothing <= _WIDEST:
            raise SettingError(
                f"UniformLabels(smoothing={self.smoothing!r}) must lie from 0, none, to {_WIDEST:g} bins; 2 is usual"
            )

    def strata(self, labels: ArrayLike) -> Strata:
        """Return the bin of each row's label, in rising order."""
        return bin_strata(labels, bins=self.bins)

    def shares(self, strata: Strata) -> NDArray[np.float64]:
        """Return the same share for each bin that has a row; with `smoothing`, rows / smoothed rows of it."""
        target = np.full(len(strata.names), 1 / len(strata.names))
        if self.smoothing:
            target = strata.counts / smoothed_counts(strata, bins=self.smoothing)
            target /= target.cumsum()[-1]
        return self._mixed(target, strata)

    def __str__(self) -> str:
        if self.bins == "auto":
            what = "label values or bins"
        elif isinstance(self.bins, tuple):
            what = f"{len(self.bins) - 1} label bins"
        else:
            what = "whole label values" if self.bins == "integer" else f"{self.bins} label bins"
        smoothed = f", smoothed over {self.smoothing:g} bins" if self.smoothing else ""
        return f"{what} equally often{smoothed}{self._rest()}"
