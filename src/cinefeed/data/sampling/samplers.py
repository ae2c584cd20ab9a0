"""The built-in samplers: their strata, and the share of each stratum in an epoch."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.core.arguments import check_arguments
from cinefeed.core.errors import LabelError, SettingError, did_you_mean
from cinefeed.data.label_types import class_name
from cinefeed.data.sampling.base import Balancing, Sampler
from cinefeed.data.sampling.multilabel import LabelSets, parse_label_sets, rarest_strata
from cinefeed.data.sampling.plan import Plan
from cinefeed.data.sampling.shares import smoothed_counts
from cinefeed.data.sampling.strata import Bins, Strata, bin_strata, check_bins, class_strata, label_array

_MAX_SMOOTHING = 100.0  # bins: a wider kernel is nearly flat for any labels, and slow


@check_arguments()
@dataclass(frozen=True, kw_only=True)
class Natural(Sampler):
    """Draws every row once per epoch, in a new random order; `shuffle=False` keeps the order of the table.

    >>> sorted(Natural().plan([3, 1, 2]).rows.tolist())
    [0, 1, 2]
    """

    shuffle: bool = True

    def strata(self, labels: ArrayLike) -> Strata:
        """Return one stratum with all rows."""
        rows = len(np.asarray(labels))
        if rows == 0:
            label_array(labels)
        return Strata(np.zeros(rows, np.int64), ("all",))

    def shares(self, strata: Strata) -> NDArray[np.float64]:
        """Return a share of 1 for the one stratum."""
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
        """Return every row once, in a random order or in the order of the table."""
        if self.shuffle:
            return super().plan(labels, seed=seed, epoch=epoch, batch_size=batch_size, groups=groups)
        rows = len(self.strata(labels).numbers)
        zeros = np.zeros(rows, np.int64)
        return Plan(rows=np.arange(rows), occurrence=zeros, strata=zeros)

    def __str__(self) -> str:
        return "every video once per epoch" + ("" if self.shuffle else ", in the order of the table")


@check_arguments()
@dataclass(frozen=True, kw_only=True)
class BalancedClasses(Balancing):
    """Gives each class its share of the epoch and of each full batch; shares are equal unless `proportion` is set.

    Args:
        proportion: The share of the positive class (the last in sorted order) of two classes, or a share for each
            class, with a sum of one; a class with a share of 0 is left out.
        separator: The text between several labels of a row, such as ";". Such rows, and rows that are lists of labels,
            belong to the rarest of their labels; rows without labels belong to a class "none".

    The other settings are those of `Balancing`.

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
            raise SettingError("BalancedClasses(separator='') is empty; give the text between labels, such as ';'")
        if isinstance(self.proportion, Mapping):
            shares = {class_name(key): float(share) for key, share in self.proportion.items()}
            if not all(0 <= share <= 1 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
                raise SettingError(
                    f"BalancedClasses(proportion={shares}): shares must be from 0 to 1 and sum to 1; "
                    f"these sum to {sum(shares.values()):g}"
                )
            object.__setattr__(self, "proportion", shares)
        elif self.proportion is not None and not 0 < self.proportion < 1:
            raise SettingError(f"BalancedClasses(proportion={self.proportion}) must be between 0 and 1")

    def strata(self, labels: ArrayLike) -> Strata:
        """Return the class of each row, numbered in sorted order. Raises LabelError if there is only one class."""
        label_sets = self._label_sets(labels)
        strata = class_strata(labels) if label_sets is None else rarest_strata(label_sets)
        if len(strata.names) == 1:
            raise LabelError(
                f"all {len(strata.numbers)} labels are {strata.names[0]!r}: one class cannot be balanced; "
                "check the filters and the split, or use Natural()"
            )
        return strata

    def _label_sets(self, labels: ArrayLike) -> LabelSets | None:
        return parse_label_sets(labels, separator=self.separator)

    def shares(self, strata: Strata) -> NDArray[np.float64]:
        """Return the share of each class. Raises SettingError if `proportion` does not match the classes."""
        names = strata.names
        target = np.full(len(names), 1 / len(names))
        if isinstance(self.proportion, Mapping):
            for name in self.proportion:
                if name not in names:
                    raise SettingError(
                        f"proportion has a share for {name!r}, which is not a label; {did_you_mean(name, names)}"
                    )
            missing = [name for name in names if name not in self.proportion]
            if missing:
                raise SettingError(f"proportion has no share for {', '.join(missing)}; give 0 to leave a class out")
            target = np.array([self.proportion[name] for name in names])
        elif self.proportion is not None:
            if len(names) != 2:
                raise SettingError(
                    f"proportion={self.proportion} needs two classes; found {len(names)}: {', '.join(names[:8])}; "
                    "give proportion={class: share}"
                )
            target = np.array([1 - self.proportion, self.proportion])
        return self._mixed(target, strata)

    def __str__(self) -> str:
        if isinstance(self.proportion, Mapping):
            shares = ", ".join(f"{name} {share:.0%}" for name, share in self.proportion.items())
        else:
            shares = "in equal shares" if self.proportion is None else f"{self.proportion:.0%} positive"
        return f"classes {shares}{self._options()}"


@check_arguments()
@dataclass(frozen=True, kw_only=True)
class UniformLabels(Balancing):
    """Gives each label value, or each bin of values, an equal share of the epoch, for regression.

    With integer labels and length="max_count", each value has the draws of the most frequent one, as in the 2020
    system. Empty bins have no draws.

    Args:
        bins: "auto" (one bin per value for integer labels, otherwise equal bins by the Rice rule), "integer", a number
            of equal bins, or bin edges; see `bin_strata`.
        smoothing: Standard deviation, in bins, of a Gaussian over which row counts are smoothed. Draws of a row are
            then inversely proportional to the smoothed count of its bin (label distribution smoothing, Yang et al.,
            ICML 2021, where it is 2). 0 is no smoothing.

    The other settings are those of `Balancing`.

    >>> plan = UniformLabels(length="max_count").plan([60, 60, 60, 35])
    >>> np.bincount(plan.rows).tolist()
    [1, 1, 1, 3]
    """

    bins: Bins = "auto"
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "bins", check_bins(self.bins))
        if not 0 <= self.smoothing <= _MAX_SMOOTHING:
            raise SettingError(
                f"UniformLabels(smoothing={self.smoothing!r}) must be from 0 (none) to {_MAX_SMOOTHING:g} bins; "
                "a common value is 2"
            )

    def strata(self, labels: ArrayLike) -> Strata:
        """Return the bin of each row, numbered in increasing order."""
        return bin_strata(labels, bins=self.bins)

    def shares(self, strata: Strata) -> NDArray[np.float64]:
        """Return equal shares of the non-empty bins, or shares proportional to rows / smoothed rows."""
        target = np.full(len(strata.names), 1 / len(strata.names))
        if self.smoothing:
            target = strata.counts / smoothed_counts(strata, bins=self.smoothing)
            target /= target.cumsum()[-1]
        return self._mixed(target, strata)

    def __str__(self) -> str:
        if self.bins == "auto":
            strata = "label values or bins"
        elif isinstance(self.bins, tuple):
            strata = f"{len(self.bins) - 1} label bins"
        else:
            strata = "integer label values" if self.bins == "integer" else f"{self.bins} label bins"
        smoothing = f", smoothed over {self.smoothing:g} bins" if self.smoothing else ""
        return f"{strata} equally often{smoothing}{self._options()}"
