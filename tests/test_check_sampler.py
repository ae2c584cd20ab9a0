from dataclasses import replace

import numpy as np
import pytest

from cinefeed.core.errors import LabelError
from cinefeed.data.sampling import BalancedClasses, Balancing, Natural, Plan, Sampler, Strata, UniformLabels
from cinefeed.data.sampling.strata import class_strata
from cinefeed.testing import check_sampler

AGES = np.random.default_rng(1).integers(20, 40, 300) + np.random.default_rng(2).integers(0, 20, 300)
PATIENTS = np.arange(300) // 3 * 7 % 90
SAMPLERS = [
    Natural(),
    Natural(shuffle=False),
    BalancedClasses(),
    BalancedClasses(strength=0.4, length=77),
    BalancedClasses(length="max_count", max_repeats=3),
    BalancedClasses(proportion=0.25, per_batch=False),
    BalancedClasses(by="weights"),
    UniformLabels(),
    UniformLabels(bins=6, length=500),
    UniformLabels(strength=0.5, length="max_count"),
    UniformLabels(smoothing=2.0, max_repeats=2),
    UniformLabels(by="weights", cap=4),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_every_sampler_keeps_its_promises_on_extreme_labels(sampler):
    check_sampler(sampler, epochs=24)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("labels", [AGES, AGES % 2, np.append(np.zeros(50), 1)], ids=["ages", "halves", "one rare"])
def test_every_sampler_keeps_its_promises(sampler, labels):
    if isinstance(sampler, BalancedClasses) and sampler.proportion is not None and len(np.unique(labels)) > 2:
        return  # one share, for two classes
    check_sampler(sampler, labels=labels, epochs=12)


@pytest.mark.parametrize(
    "sampler",
    [
        BalancedClasses(group="patient"),
        UniformLabels(group="patient", bins=5, max_repeats=3),
        UniformLabels(group="patient", bins=5, by="weights"),
        UniformLabels(group="patient", strength=0.0),
    ],
    ids=str,
)
def test_samplers_with_groups(sampler):
    check_sampler(sampler, labels=AGES, groups=PATIENTS, epochs=12)
    check_sampler(sampler, epochs=12)


def test_a_sampler_of_one_s_own_says_its_strata_and_shares():
    class Halves(Sampler):
        """The rows below the median as often as those above."""

        def strata(self, labels):
            return class_strata(np.asarray(labels) > np.median(labels))

        def shares(self, strata: Strata):
            return np.full(len(strata.names), 1 / len(strata.names))

    check_sampler(Halves(), labels=AGES)


def changed(**arrays):
    """Return a sampler whose plans have some arrays changed, each by a function of the plan."""

    class Changed(BalancedClasses):
        def plan(self, labels, **address):
            plan = super().plan(labels, **address)
            arrays_of_plan = {name: change(plan) for name, change in arrays.items()}
            whole = {"rows": plan.rows, "occurrence": plan.occurrence, "strata": plan.strata} | arrays_of_plan
            return Plan(**whole)

    return Changed()


class Another(BalancedClasses):
    """Another plan each time."""

    def plan(self, labels, **address):
        self.__dict__["asked"] = self.__dict__.get("asked", 0) + 1
        return super().plan(labels, **address | {"epoch": self.__dict__["asked"]})


class Stuck(BalancedClasses):
    """Every epoch is the first."""

    def plan(self, labels, **address):
        return super().plan(labels, **address | {"epoch": 0})


class Global(BalancedClasses):
    """Batches of twelve, whatever is asked for."""

    def plan(self, labels, *, batch_size=None, **address):
        return super().plan(labels, batch_size=batch_size and 12, **address)


class Heavy(BalancedClasses):
    def sample_weights(self, labels, *, groups=None):
        return np.full(len(labels), 2, np.float32)


class Telling(BalancedClasses):
    def report(self, labels, **address):
        return replace(super().report(labels, **address), never_drawn=0)


class Broken(BalancedClasses):
    def expected_draws(self, labels, *, groups=None):
        return super().expected_draws(labels) * 1.001


class Editing(BalancedClasses):
    def plan(self, labels, **address):
        plan = super().plan(labels, **address)
        labels[:] = np.roll(labels, 0) + 2
        return plan


def descending(plan):
    return np.sort(plan.rows)[::-1]


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (changed(rows=lambda plan: np.repeat(plan.rows[::2], 2)[: len(plan)]), "strata are not those"),
        (changed(rows=lambda plan: plan.rows[:-1], strata=lambda plan: plan.strata[:-1]), "299 draws, expected 300"),
        (changed(occurrence=lambda plan: plan.occurrence * 0), "occurrence does not count"),
        (changed(occurrence=lambda plan: plan.occurrence.astype(float)), "occurrence is float64"),
        (Another(), "a second call gave another plan"),
        (Stuck(), "draws per epoch"),
        (Global(), "a batch deviates"),
        (Heavy(), "the mean weight is 2"),
        (Telling(), "the report has"),
        (Broken(), r"expected draws is 300\.[23]"),
        (Editing(), "labels were changed"),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Sampler) else "",
)
def test_a_sampler_that_breaks_its_promises_is_found(sampler, message):
    with pytest.raises(AssertionError, match=message):
        check_sampler(sampler, labels=np.where(AGES > 50, 1, 0))


def test_rows_drawn_twice_in_place_of_others_are_found():
    def twice(plan):
        rows, strata = plan.rows.copy(), plan.strata
        once = [np.flatnonzero((strata == 0) & (plan.occurrence == 0))[k] for k in range(2)]
        rows[once[0]] = rows[once[1]]
        return rows

    sampler = changed(rows=twice)
    with pytest.raises(AssertionError, match="a row is drawn"):
        check_sampler(sampler, labels=np.where(AGES > 50, 1, 0))


def test_global_batches_without_the_shares_are_found():
    """Each batch of a rank has its shares, but the batches that follow each other are rounded up together."""

    class Sorted(BalancedClasses):
        def plan(self, labels, *, batch_size=None, **address):
            plan = super().plan(labels, batch_size=batch_size, **address)
            if batch_size is None or batch_size == 7:
                return plan
            full = len(plan) // batch_size
            sums = plan.strata[: full * batch_size].reshape(full, batch_size).sum(axis=1)
            batches = np.argsort(sums, kind="stable")[:, None] * batch_size + np.arange(batch_size)
            order = np.append(batches.ravel(), np.arange(full * batch_size, len(plan)))
            rows = plan.rows[order]
            occurrence = np.empty_like(rows)
            occurrence[np.argsort(rows, kind="stable")] = np.sort(plan.occurrence[order])
            return Plan(rows=rows, occurrence=occurrence, strata=plan.strata[order])

    with pytest.raises(AssertionError, match=r"[24] ranks: a global batch deviates"):
        check_sampler(Sorted(proportion=0.4375), labels=np.where(AGES > 50, 1, 0))


@pytest.mark.parametrize("refused", ["nothing", "nan"])
def test_a_sampler_that_takes_any_label_for_a_number_is_found(refused):
    class Careless(Balancing):
        def strata(self, labels):
            values = np.asarray(labels, float)
            if refused == "nan" and np.isnan(values).any():
                raise LabelError("a NaN label")
            return class_strata(values > 1.5)

        def shares(self, strata):
            return np.full(len(strata.names), 1 / len(strata.names))

    with pytest.raises(AssertionError, match=f"a label that is {'inf' if refused == 'nan' else 'nan'} is not rejected"):
        check_sampler(Careless(), epochs=8)


def test_a_sampler_that_refuses_everything_is_told():
    with pytest.raises(AssertionError, match="rejects all labels"):
        check_sampler(BalancedClasses(proportion={"odd": 0.5, "even": 0.5}))
