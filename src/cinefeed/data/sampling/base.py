"""Base classes of samplers: expected draws or weights of rows, plans and reports from the shares of strata."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.core.errors import SettingError, did_you_mean
from cinefeed.data.sampling.multilabel import LabelSets
from cinefeed.data.sampling.plan import Plan, draw
from cinefeed.data.sampling.report import BalanceReport, make_report
from cinefeed.data.sampling.shares import distribute_draws, fill
from cinefeed.data.sampling.strata import Strata, group_numbers

Length = Literal["natural", "max_count"] | int
By = Literal["draws", "weights"]
Floats = NDArray[np.float64]


class Sampler(ABC):
    """A rule for the expected draws of each row in an epoch. Subclasses implement `strata` and `shares`."""

    length: Length = "natural"
    max_repeats: int | None = None
    group: str | None = None
    per_batch: bool = True
    by: By = "draws"
    cap: float = 10.0

    @abstractmethod
    def strata(self, labels: ArrayLike) -> Strata:
        """Return the class or label bin of each row. Raises LabelError for labels that cannot be balanced."""

    @abstractmethod
    def shares(self, strata: Strata) -> Floats:
        """Return the share of each stratum in the epoch, float64 (strata,), with a sum of one."""

    def expected_draws(self, labels: ArrayLike, *, groups: ArrayLike | None = None) -> Floats:
        """Return the expected draws of each row in an epoch, float64 (rows,); equal for rows of one stratum and group.

        `groups` (rows,) are the values of the column `group`. Raises SettingError if they are needed and missing.

        >>> from cinefeed.data.sampling import UniformLabels
        >>> UniformLabels().expected_draws([60, 60, 60, 35]).round(2).tolist()
        [0.67, 0.67, 0.67, 2.0]
        """
        strata = self.strata(labels)
        if self.by == "weights":
            return np.ones(len(strata.numbers))
        return self._balanced(strata, self._groups(groups, strata))

    def sample_weights(self, labels: ArrayLike, *, groups: ArrayLike | None = None) -> NDArray[np.float32] | None:
        """Return the loss weight of each row, float32 (rows,), with a mean of one and a maximum of `cap`.

        The weights are the expected draws with by="draws" in an epoch as long as the table. Returns None with
        by="draws", because rows are then drawn and have equal weights.

        >>> from cinefeed.data.sampling import UniformLabels
        >>> UniformLabels(by="weights").sample_weights([60, 60, 60, 35]).tolist()
        [0.6666666865348816, 0.6666666865348816, 0.6666666865348816, 2.0]
        """
        if self.by == "draws":
            return None
        strata = self.strata(labels)
        return self._balanced(strata, self._groups(groups, strata)).astype(np.float32)

    def plan(
        self,
        labels: ArrayLike,
        *,
        seed: int = 0,
        epoch: int = 0,
        batch_size: int | None = None,
        groups: ArrayLike | None = None,
    ) -> Plan:
        """Return the draws of one epoch, in order.

        With `batch_size`, each full batch has the shares of the epoch, to within one draw, unless per_batch=False.

        >>> from cinefeed.data.sampling import BalancedClasses
        >>> plan = BalancedClasses().plan(["sick"] * 2 + ["well"] * 6, batch_size=4)
        >>> plan.strata.reshape(2, 4).sum(axis=1).tolist()
        [2, 2]
        """
        strata = self.strata(labels)
        if self.by == "weights":
            once, one_stratum = np.ones(len(strata.numbers)), np.zeros(len(strata.numbers), np.int64)
            plan = draw(once, strata=one_stratum, seed=seed, epoch=epoch, batch_size=batch_size)
            return replace(plan, strata=strata.numbers[plan.rows])
        numbers = self._groups(groups, strata)
        return draw(
            self._balanced(strata, numbers),
            strata=strata.numbers,
            values=strata.values,
            groups=numbers,
            seed=seed,
            epoch=epoch,
            batch_size=batch_size if self.per_batch else None,
        )

    def report(
        self,
        labels: ArrayLike,
        *,
        seed: int = 0,
        epoch: int = 0,
        batch_size: int | None = None,
        groups: ArrayLike | None = None,
    ) -> BalanceReport:
        """Return a report of the label distribution in one epoch.

        >>> from cinefeed.data.sampling import BalancedClasses
        >>> print(BalancedClasses().report(["sick"] * 1 + ["well"] * 7))
        8 rows -> 8 draws: sick 1 -> 4, well 7 -> 4; most drawn row 4 times, 3 rows not drawn; effective sample size 3.5
        """
        strata = self.strata(labels)
        numbers, limit = self._groups(groups, strata), self._limit()
        expected = self._balanced(strata, numbers)
        return make_report(
            strata=strata,
            plan=self.plan(labels, seed=seed, epoch=epoch, batch_size=batch_size, groups=groups),
            target=expected
            if limit is None
            else distribute_draws(self._target_draws(strata), strata=strata, groups=numbers),
            expected=expected,
            weights=expected if self.by == "weights" else None,
            groups=numbers,
            label_sets=self._label_sets(labels),
            batch_size=batch_size if self.per_batch else None,
            limit="" if limit is None else f"{'cap' if self.by == 'weights' else 'max_repeats'}={limit:g}",
        )

    def _label_sets(self, labels: ArrayLike) -> LabelSets | None:
        """Return the labels of each row if rows have several, or None."""
        return None

    def _limit(self) -> float | None:
        return self.cap if self.by == "weights" else self.max_repeats

    def _groups(self, groups: ArrayLike | None, strata: Strata) -> NDArray[np.int64] | None:
        """Return the group number of each row, or None without the setting `group`."""
        if self.group is None:
            return None
        if groups is None:
            raise SettingError(f"group={self.group!r} needs groups=, one value per row; pass that column")
        return group_numbers(groups, rows=len(strata.numbers))

    def _target_draws(self, strata: Strata) -> Floats:
        """Return the draws of each stratum according to its share, before the limit, (strata,)."""
        shares, counts = self.shares(strata), strata.counts
        draws = float(len(strata.numbers))
        if self.length == "max_count":
            draws = round(float((counts[shares > 0] / shares[shares > 0]).max()))
        elif self.length != "natural":
            draws = self.length
        return np.asarray(draws * shares)

    def _balanced(self, strata: Strata, groups: NDArray[np.int64] | None) -> Floats:
        """Return the expected draws or weights of each row, (rows,)."""
        target, limit = self._target_draws(strata), self._limit()
        if limit is None:
            return distribute_draws(target, strata=strata, groups=groups)
        limits = np.asarray(limit * strata.counts * (target > 0), np.float64)
        total = round(float(target.sum()))
        if self.length == "max_count":  # draws above a limit are dropped, not given to other strata
            total = round(float(np.minimum(target, limits).sum()))
        if limits.sum() < total:
            raise SettingError(
                f"an epoch needs {total} draws; {len(strata.numbers)} rows allow at most {limits.sum():g}; raise "
                f"{'cap' if self.by == 'weights' else 'max_repeats'}={limit:g}, or lower length={self.length!r}"
            )
        draws = fill(target, limits=limits, total=total)
        return distribute_draws(draws, strata=strata, groups=groups, limit=limit)


@dataclass(frozen=True, kw_only=True)
class Balancing(Sampler):
    """Settings shared by the samplers that balance labels.

    Args:
        strength: From 0 (the shares in the data) to 1 (the shares of the sampler).
        length: Number of draws in an epoch: "natural" is the number of rows. "max_count" is the smallest number for
            which no row has to be left out; with equal shares, each stratum then has the draws of the largest one.
        max_repeats: Maximum number of draws of a row in an epoch. Excess draws go to other strata, or are dropped with
            length="max_count".
        group: A column, such as the patient; in a stratum, each value of it gets equal draws.
        per_batch: If True, each full batch has the shares, to within one draw. If False, only the epoch has them.
        by: "draws", or "weights" to draw each row once per epoch with loss weights of mean one.
        cap: Maximum weight. Excess weight goes to other strata.

    Raises SettingError for invalid settings.
    """

    strength: float = 1.0
    length: Length = "natural"
    max_repeats: int | None = None
    group: str | None = None
    per_batch: bool = True
    by: By = "draws"
    cap: float = 10.0

    def __post_init__(self) -> None:
        owner, length, most = type(self).__name__, self.length, self.max_repeats
        if isinstance(length, str):
            if length not in ("natural", "max_count"):
                raise SettingError(f"{owner}(length={length!r}): {did_you_mean(length, ('natural', 'max_count'))}")
        elif isinstance(length, bool) or not isinstance(length, int | np.integer) or length < 1:
            raise SettingError(f"{owner}(length={length!r}) must be 'natural', 'max_count' or a whole number of draws")
        if not 0 <= self.strength <= 1:
            raise SettingError(f"{owner}(strength={self.strength!r}) must be from 0 (natural) to 1 (fully balanced)")
        if most is not None and (isinstance(most, bool) or not isinstance(most, int | np.integer) or most < 1):
            raise SettingError(f"{owner}(max_repeats={most!r}) must be a whole number of draws, 1 or more")
        if self.by not in ("draws", "weights"):
            raise SettingError(f"{owner}(by={self.by!r}): {did_you_mean(str(self.by), ('draws', 'weights'))}")
        if not (np.isfinite(self.cap) and self.cap >= 1):
            raise SettingError(f"{owner}(cap={self.cap!r}) must be a number of at least 1, the mean weight")
        if self.by == "weights" and (length != "natural" or most is not None):
            raise SettingError(
                f"{owner}(by='weights') draws every row once per epoch; leave out length and max_repeats, and limit "
                "weights with cap"
            )

    def _mixed(self, target: Floats, strata: Strata) -> Floats:
        """Return shares between the natural ones and the target, with a sum of one."""
        shares = self.strength * target + (1 - self.strength) * strata.counts / len(strata.numbers)
        return np.asarray(shares / math.fsum(shares))  # the order of additions in np.sum depends on the machine

    def _options(self) -> str:
        """Return a description of the settings that are not the default."""
        parts = [
            "" if self.strength == 1 else f"strength {self.strength:g}",
            "each as often as the most frequent" if self.length == "max_count" else "",
            "" if isinstance(self.length, str) else f"{self.length} draws per epoch",
            "" if self.max_repeats is None else f"at most {self.max_repeats} draws per video",
            "" if self.group is None else f"equal draws for each {self.group}",
            "" if self.per_batch else "shares by epoch, not by batch",
            "" if self.by == "draws" else f"by weights of at most {self.cap:g}",
        ]
        return "".join(f", {each}" for each in parts if each)
