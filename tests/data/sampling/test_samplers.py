import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinefeed.core.errors import LabelError, SettingError
from cinefeed.data.sampling import BalancedClasses, Natural, UniformLabels

AGES = np.random.default_rng(1).integers(20, 40, 300) + np.random.default_rng(2).integers(0, 20, 300)
RARE = np.array(["well"] * 90 + ["sick"] * 10)


@given(st.lists(st.floats(-1e300, 1e300) | st.integers(-3, 3), min_size=1, max_size=30), st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_any_label_vector_can_be_made_uniform(labels, epoch):
    sampler = UniformLabels()
    expected = sampler.expected_draws(labels)
    plan = sampler.plan(labels, epoch=epoch, batch_size=4)
    assert len(plan) == len(labels)
    draws = np.bincount(plan.rows, minlength=len(labels))
    assert (draws >= np.floor(expected - 1e-9)).all() and (draws <= np.ceil(expected + 1e-9)).all()
    fed = np.bincount(plan.strata, minlength=len(sampler.strata(labels).names))
    assert fed.max() - fed.min() <= 1


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=60), st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_any_classes_can_be_balanced(labels, batch_size):
    if len(set(labels)) == 1:
        with pytest.raises(LabelError, match="one class"):
            BalancedClasses().plan(labels)
        return
    plan = BalancedClasses().plan(labels, batch_size=batch_size)
    classes = len(set(labels))
    for batch in plan.strata[: len(plan) // batch_size * batch_size].reshape(-1, batch_size):
        counts = np.bincount(batch, minlength=classes)
        assert counts.min() >= batch_size // classes and counts.max() <= -(-batch_size // classes)


def test_the_rule_of_2020():
    """Integer ages: each value as often as the most frequent one. Half and half: every batch."""
    values, counts = np.unique(AGES, return_counts=True)
    for bins in ("auto", "integer"):
        plan = UniformLabels(bins=bins, length="max_count").plan(AGES)
        fed, fed_counts = np.unique(AGES[plan.rows], return_counts=True)
        assert np.array_equal(fed, values)
        assert set(fed_counts.tolist()) == {counts.max()}
        assert np.bincount(plan.rows, minlength=len(AGES)).min() >= 1
    for length in ("natural", "max_count", 77):
        plan = BalancedClasses(length=length).plan(RARE, batch_size=16)
        halves = plan.strata[: len(plan) // 16 * 16].reshape(-1, 16).sum(axis=1)
        assert set(halves.tolist()) == {8}


def test_lengths():
    assert len(BalancedClasses().plan(RARE)) == 100
    assert np.bincount(BalancedClasses(length="max_count").plan(RARE).strata).tolist() == [90, 90]
    assert len(BalancedClasses(length=33).plan(RARE)) == 33
    uneven = BalancedClasses(proportion={"sick": 0.1, "well": 0.9}, length="max_count").plan(RARE)
    assert np.bincount(uneven.rows).tolist() == [1] * 100


def test_proportions():
    assert np.bincount(BalancedClasses(proportion=0.75).plan(RARE).strata).tolist() == [25, 75]
    assert np.bincount(BalancedClasses(proportion={"well": 0.25, "sick": 0.75}).plan(RARE).strata).tolist() == [75, 25]
    assert set(BalancedClasses(proportion={"well": 0, "sick": 1}).plan(RARE).strata.tolist()) == {0}
    assert np.bincount(BalancedClasses(strength=0).plan(RARE).strata).tolist() == [10, 90]
    assert np.bincount(BalancedClasses(strength=0.5).plan(RARE).strata).tolist() == [30, 70]


def test_natural_takes_each_row_once():
    plan = Natural().plan(AGES, seed=1)
    assert sorted(plan.rows.tolist()) == list(range(300))
    assert not plan.occurrence.any() and not plan.strata.any()
    assert not np.array_equal(plan.rows, Natural().plan(AGES, seed=1, epoch=1).rows)
    assert Natural(shuffle=False).plan(["b", "a", "c"]).rows.tolist() == [0, 1, 2]
    assert Natural().plan([np.nan]).rows.tolist() == [0]
    with pytest.raises(LabelError, match="no labels"):
        Natural().plan([])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BalancedClasses(length="max_counts"), "did you mean 'max_count'"),
        (lambda: BalancedClasses(length=0), "length=0"),
        (lambda: UniformLabels(length=True), "length=True"),
        (lambda: UniformLabels(strength=1.5), "strength=1.5"),
        (lambda: UniformLabels(max_repeats=0), "max_repeats=0"),
        (lambda: UniformLabels(max_repeats=True), "max_repeats=True"),
        (lambda: UniformLabels(by="weight"), "did you mean 'weights'"),
        (lambda: UniformLabels(cap=0.5), "cap=0.5"),
        (lambda: UniformLabels(cap=np.nan), "cap=nan"),
        (lambda: UniformLabels(by="weights", length=50), "draws every row once"),
        (lambda: UniformLabels(by="weights", max_repeats=5), "draws every row once"),
        (lambda: UniformLabels(smoothing=-1.0), "smoothing=-1.0"),
        (lambda: UniformLabels(smoothing=np.inf), "smoothing=inf"),
        (lambda: BalancedClasses(separator=""), "is empty"),
        (lambda: BalancedClasses(max_repeats=2, length=201).plan(RARE), "needs 201 draws; 100 rows allow at most 200"),
        (lambda: BalancedClasses(group="patient").plan(RARE), "needs groups="),
        (lambda: BalancedClasses(proportion=1.0), "between 0 and 1"),
        (lambda: BalancedClasses(proportion={"a": 0.5, "b": 0.4}), "sum to 0.9"),
        (lambda: BalancedClasses(proportion={"sick": 0.5, "wel": 0.5}).plan(RARE), "did you mean 'well'"),
        (lambda: BalancedClasses(proportion={"sick": 1}).plan(RARE), "no share for well"),
        (lambda: BalancedClasses(proportion=0.5).plan(list("abc")), "found 3: a, b, c"),
    ],
)
def test_settings_that_do_not_fit(make, message):
    with pytest.raises(SettingError, match=message):
        make()


def test_samplers_say_what_they_do():
    assert [
        str(each)
        for each in (
            Natural(),
            Natural(shuffle=False),
            BalancedClasses(),
            BalancedClasses(proportion=0.3, length=50),
            BalancedClasses(proportion={"a": 0.25, "b": 0.75}),
            UniformLabels(length="max_count"),
            UniformLabels(bins=20, strength=0.5),
            UniformLabels(bins=[0, 40, 100]),
            UniformLabels(smoothing=2, max_repeats=5, group="patient", per_batch=False),
            BalancedClasses(by="weights", cap=4),
        )
    ] == [
        "every video once per epoch",
        "every video once per epoch, in the order of the table",
        "classes in equal shares",
        "classes 30% positive, 50 draws per epoch",
        "classes a 25%, b 75%",
        "label values or bins equally often, each as often as the most frequent",
        "20 label bins equally often, strength 0.5",
        "2 label bins equally often",
        "label values or bins equally often, smoothed over 2 bins, at most 5 draws per video, "
        "equal draws for each patient, shares by epoch, not by batch",
        "classes in equal shares, by weights of at most 4",
    ]


def test_many_values_each_its_own_bin():
    labels = np.random.default_rng(0).integers(0, 20_000, 100_000)
    plan = UniformLabels().plan(labels, batch_size=16)
    fed = np.bincount(plan.strata)
    assert fed.max() - fed.min() <= 1


PATIENTS = np.array([f"p{k}" for k in np.random.default_rng(3).integers(0, 40, 300)])


def draw_counts(sampler, labels, **address):
    return np.bincount(sampler.plan(labels, **address).rows, minlength=len(labels))


def test_no_row_is_drawn_more_than_max_repeats_and_the_others_get_the_rest():
    free, capped = BalancedClasses(), BalancedClasses(max_repeats=3)
    assert free.expected_draws(RARE)[RARE == "sick"].tolist() == [5.0] * 10
    assert capped.expected_draws(RARE)[RARE == "sick"].tolist() == [3.0] * 10
    for epoch in range(5):
        counts = draw_counts(capped, RARE, epoch=epoch, batch_size=16)
        assert counts.sum() == 100 and counts.max() == 3 and counts[RARE == "sick"].sum() == 30
    # with max_count nobody gets what is over: the frequent class would be repeated for nothing
    shorter = BalancedClasses(max_repeats=3, length="max_count")
    assert np.bincount(shorter.plan(RARE).strata).tolist() == [30, 90]
    assert np.bincount(BalancedClasses(max_repeats=1).plan(RARE).rows).tolist() == [1] * 100


def test_each_patient_comes_equally_often_within_a_class():
    classes = np.where(AGES > 50, "old", "young")
    sampler = BalancedClasses(group="patient", length=600)
    for labels, each in ((classes, sampler), (AGES.astype(float), UniformLabels(bins=(0, 50.5, 100), group="patient"))):
        expected = each.expected_draws(labels, groups=PATIENTS)
        strata = each.strata(labels).numbers
        for epoch in range(20):
            counts = draw_counts(each, labels, groups=PATIENTS, epoch=epoch, batch_size=16 if epoch % 2 else None)
            for number in (0, 1):
                here = strata == number
                patients = np.unique(PATIENTS[here])
                expected_draws = expected[here].sum() / len(patients)
                for patient in patients:
                    assert abs(counts[here & (patient == PATIENTS)].sum() - expected_draws) < 1


def test_groups_that_do_not_fit():
    sampler = BalancedClasses(group="patient")
    with pytest.raises(LabelError, match="2 groups for 100 labels"):
        sampler.plan(RARE, groups=["a", "b"])
    with pytest.raises(LabelError, match="groups: 1 of 100 rows has no label"):
        sampler.plan(RARE, groups=np.array([None, *["a"] * 99], object))


def test_weights_are_the_draws_that_repeats_would_give():
    for repeats, weights in (
        (UniformLabels(bins=8), UniformLabels(bins=8, by="weights", cap=1e9)),
        (BalancedClasses(max_repeats=2), BalancedClasses(by="weights", cap=2)),
        (BalancedClasses(group="p"), BalancedClasses(group="p", by="weights", cap=1e9)),
    ):
        labels = AGES if isinstance(repeats, UniformLabels) else RARE
        groups = None if repeats.group is None else np.arange(len(labels)) // 3
        sample_weights = weights.sample_weights(labels, groups=groups)
        assert sample_weights.dtype == np.float32 and np.allclose(
            sample_weights, repeats.expected_draws(labels, groups=groups)
        )
        assert sample_weights.mean() == pytest.approx(1)
        plan, natural = weights.plan(labels, seed=3, epoch=2, groups=groups), Natural().plan(labels, seed=3, epoch=2)
        assert np.array_equal(plan.rows, natural.rows)
        assert np.array_equal(plan.strata, weights.strata(labels).numbers[plan.rows])
        assert repeats.sample_weights(labels) is None and Natural().sample_weights(labels) is None
    assert UniformLabels(by="weights", cap=1.5).sample_weights([1, 1, 1, 1, 1, 1, 1, 9]).max() == 1.5


def test_shares_are_by_batch_unless_told_otherwise():
    by_batch, by_epoch, plain = (
        BalancedClasses(per_batch=each).plan(RARE, batch_size=size)
        for each, size in ((True, 7), (False, 7), (True, None))
    )
    assert set(by_batch.strata[:98].reshape(14, 7).sum(axis=1).tolist()) == {3, 4}
    assert np.array_equal(by_epoch.rows, plain.rows) and not np.array_equal(by_epoch.rows, by_batch.rows)


def test_smoothing_raises_what_is_rare_among_its_neighbours():
    labels = np.repeat([1, 2, 3, 20], [100, 1, 100, 1])
    plain, smooth = (UniformLabels(smoothing=each).expected_draws(labels) for each in (0, 1))
    between, alone = labels == 2, labels == 20
    assert plain[between].sum() == plain[alone].sum()
    assert smooth[alone].sum() > 50 * smooth[between].sum()
    assert UniformLabels(smoothing=2).expected_draws([4.0, 4.0]).tolist() == [1.0, 1.0]


@given(
    st.lists(st.integers(-3, 12) | st.floats(-1e6, 1e6), min_size=1, max_size=60),
    st.builds(
        dict,
        strength=st.floats(0, 1),
        max_repeats=st.none() | st.integers(1, 5),
        smoothing=st.sampled_from([0.0, 0.5, 2.0]),
        bins=st.sampled_from(["auto", 1, 7]),
        group=st.none() | st.just("patient"),
    ),
    st.sampled_from(["natural", "max_count", 13, 60]),
    st.none() | st.integers(1, 20),
    st.integers(0, 9),
)
@settings(max_examples=300, deadline=None)
def test_any_settings_give_exact_draws(labels, options, length, batch_size, epoch):
    limit = options["max_repeats"]
    if isinstance(length, int) and limit is not None:
        length = min(length, limit * len(labels))
    groups = np.arange(len(labels)) % 4 if options["group"] else None
    sampler = UniformLabels(**options, length=length)
    expected = sampler.expected_draws(labels, groups=groups)
    counts = draw_counts(sampler, labels, groups=groups, epoch=epoch, batch_size=batch_size)
    assert counts.sum() == round(expected.sum())
    assert (counts >= np.floor(expected + 1e-6)).all() and (counts <= np.ceil(expected - 1e-6)).all()
    assert limit is None or counts.max() <= limit
    weights = UniformLabels(**options | {"max_repeats": None}, by="weights", cap=3).sample_weights(
        labels, groups=groups
    )
    assert weights.max() <= 3 + 1e-5 and weights.mean(dtype=float) == pytest.approx(1, abs=1e-5)
