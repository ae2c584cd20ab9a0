"""What every sampler does: strata and their shares -> expected draws, or weights, of each row -> plan and report."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.balance.plan import Plan, draw
from cinefeed.balance.rarest import Carried
from cinefeed.balance.report import BalanceReport, make_report
from cinefeed.balance.shares import fill, spread
from cinefeed.balance.strata import Strata, group_numbers
from cinefeed.errors import SettingError, did_you_mean

Length = Literal["natural", "max_count"] | int
By = Literal["draws", "weights"]
Floats = NDArray[np.float64]


class Sampler(ABC):
    """A rule that says how often each row is expected in an epoch. A new one says its strata and their shares."""

    length: Length = "natural"
    max_repeats: int | None = None
    group: str | None = None
    per_batch: bool = True
    by: By = "draws"
    cap: float = 10.0

    @abstractmethod
    def strata(self, labels: ArrayLike) -> Strata:
        """Return the class or label bin of each row. Raises LabelError where these labels cannot be balanced."""

    @abstractmethod
    def shares(self, strata: Strata) -> Floats:
        """Return the share of the epoch that each stratum gets, float64 (strata,), one in sum."""

    def expected_draws(self, labels: ArrayLike, *, groups: ArrayLike | None = None) -> Floats:
        """Return how often each row is expected in an epoch, float64 (rows,); rows of one stratum and group are alike.

        `groups` (rows,) are the values of the column that `group` names. Raises SettingError where they are missing.

        >>> from cinefeed.balance import UniformLabels
        >>> UniformLabels().expected_draws([60, 60, 60, 35]).round(2).tolist()
        [0.67, 0.67, 0.67, 2.0]
        """
        strata = self.strata(labels)
        if self.by == "weights":
            return np.ones(len(strata.numbers))
        return self._balanced(strata, self._groups(groups, strata))

    def sample_weights(self, labels: ArrayLike, *, groups: ArrayLike | None = None) -> NDArray[np.float32] | None:
        """Return how much each row counts in the loss, float32 (rows,) of mean one, none above `cap`.

        They are the draws that by="draws" would expect of an epoch as long as the table; None there, where rows are
        drawn so often and all count alike.

        >>> from cinefeed.balance import UniformLabels
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
        """Return the exact draws of one epoch, in order.

        With `batch_size`, every full batch has the epoch's shares to within one draw, unless per_batch=False.

        >>> from cinefeed.balance import BalancedClasses
        >>> plan = BalancedClasses().plan(["sick"] * 2 + ["well"] * 6, batch_size=4)
        >>> plan.strata.reshape(2, 4).sum(axis=1).tolist()
        [2, 2]
        """
        strata = self.strata(labels)
        if self.by == "weights":
            once, together = np.ones(len(strata.numbers)), np.zeros(len(strata.numbers), np.int64)
            plan = draw(once, strata=together, seed=seed, epoch=epoch, batch_size=batch_size)
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
        """Return what the sampler makes of these labels in one epoch.

        >>> from cinefeed.balance import BalancedClasses
        >>> print(BalancedClasses().report(["sick"] * 1 + ["well"] * 7))
        8 rows -> 8 draws: sick 1 -> 4, well 7 -> 4; most drawn row 4 times, 3 rows not drawn; effective sample size 3.5
        """
        strata = self.strata(labels)
        numbers, limit = self._groups(groups, strata), self._limit()
        expected = self._balanced(strata, numbers)
        return make_report(
            strata=strata,
            plan=self.plan(labels, seed=seed, epoch=epoch, batch_size=batch_size, groups=groups),
            target=expected if limit is None else spread(self._asked(strata), strata=strata, groups=numbers),
            expected=expected,
            weights=expected if self.by == "weights" else None,
            groups=numbers,
            carried=self._carried(labels),
            batch_size=batch_size if self.per_batch else None,
            limit="" if limit is None else f"{'cap' if self.by == 'weights' else 'max_repeats'}={limit:g}",
        )

    def _carried(self, labels: ArrayLike) -> Carried | None:
        """Return the labels that each row carries, where it may be several."""
        return None

    def _limit(self) -> float | None:
        return self.cap if self.by == "weights" else self.max_repeats

    def _groups(self, groups: ArrayLike | None, strata: Strata) -> NDArray[np.int64] | None:
        """Return the number of each row's group, where groups are to be alike."""
        if self.group is None:
            return None
        if groups is None:
            raise SettingError(f"group={self.group!r}: whose row is whose is not known; pass groups=, one value a row")
        return group_numbers(groups, rows=len(strata.numbers))

    def _asked(self, strata: Strata) -> Floats:
        """Return the draws of each stratum that its share asks for, (strata,)."""
        shares, counts = self.shares(strata), strata.counts
        draws = float(len(strata.numbers))
        if self.length == "max_count":
            draws = round(float((counts[shares > 0] / shares[shares > 0]).max()))
        elif self.length != "natural":
            draws = self.length
        return np.asarray(draws * shares)

    def _balanced(self, strata: Strata, groups: NDArray[np.int64] | None) -> Floats:
        """Return the expected draws of each row, or its weight, (rows,)."""
        asked, limit = self._asked(strata), self._limit()
        if limit is None:
            return spread(asked, strata=strata, groups=groups)
        most = np.asarray(limit * strata.counts * (asked > 0), np.float64)
        draws = round(float(asked.sum()))
        if self.length == "max_count":  # each as often as the most frequent one, or as it may be: no one gets more
            draws = round(float(np.minimum(asked, most).sum()))
        if most.sum() < draws:
            raise SettingError(
                f"{len(strata.numbers)} rows give {most.sum():g} draws at most, {draws} are asked for: raise "
                f"{'cap' if self.by == 'weights' else 'max_repeats'}={limit:g}, or lower length={self.length!r}"
            )
        return spread(fill(asked, most=most, total=draws), strata=strata, groups=groups, most=limit)


@dataclass(frozen=True, kw_only=True)
class Balancing(Sampler):
    """The settings that samplers share which balance something.

    strength: from 0, as the labels are, to 1, the shares asked for.
    length: draws of an epoch: "natural" is the number of rows; "max_count" just enough that no row need be left out, so
    that with equal shares each stratum comes as often as the most frequent one.
    max_repeats: the most draws of a row in an epoch; what is over goes to the other strata (with "max_count" to none).
    group: a column; within a stratum, each of its values (each patient) comes equally often, whatever its rows.
    per_batch: every full batch has the shares, to within one draw; False spreads them evenly over the epoch alone.
    by: "draws", or "weights": every row once an epoch, and the same balance as weights in the loss, of mean one.
    cap: the largest weight; what is over goes to the other strata.
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
            raise SettingError(f"{owner}(strength={self.strength!r}) must lie from 0 (natural) to 1 (fully balanced)")
        if most is not None and (isinstance(most, bool) or not isinstance(most, int | np.integer) or most < 1):
            raise SettingError(f"{owner}(max_repeats={most!r}) must be a whole number of draws, 1 or more")
        if self.by not in ("draws", "weights"):
            raise SettingError(f"{owner}(by={self.by!r}): {did_you_mean(str(self.by), ('draws', 'weights'))}")
        if not (np.isfinite(self.cap) and self.cap >= 1):
            raise SettingError(f"{owner}(cap={self.cap!r}) must be a number of at least 1, the mean weight")
        if self.by == "weights" and (length != "natural" or most is not None):
            raise SettingError(
                f"{owner}(by='weights') feeds every row once an epoch: leave out length and max_repeats; cap limits "
                "the weights"
            )

    def _mixed(self, target: Floats, strata: Strata) -> Floats:
        """Return shares between the natural ones and the target, one in sum."""
        shares = self.strength * target + (1 - self.strength) * strata.counts / len(strata.numbers)
        return np.asarray(shares / math.fsum(shares))  # np.sum adds in an order of the machine's

    def _rest(self) -> str:
        """Say what is not as usual."""
        parts = [
            "" if self.strength == 1 else f"strength {self.strength:g}",
            "every one as often as the most frequent" if self.length == "max_count" else "",
            "" if isinstance(self.length, str) else f"{self.length} draws an epoch",
            "" if self.max_repeats is None else f"no video more than {self.max_repeats} times",
            "" if self.group is None else f"each {self.group} alike",
            "" if self.per_batch else "shares by epoch, not by batch",
            "" if self.by == "draws" else f"by weights of at most {self.cap:g}",
        ]
        return "".join(f", {each}" for each in parts if each)
