import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from cinefeed.balance import BalancedClasses, Natural, Plan, UniformLabels, class_weights
from cinefeed.errors import LabelError, SettingError
from cinefeed.testing import check_sampler

AGES = np.random.default_rng(1).integers(20, 40, 300) + np.random.default_rng(2).integers(0, 20, 300)
RARE = np.array(["well"] * 90 + ["sick"] * 10)


@pytest.mark.parametrize(
    "sampler",
    [
        Natural(),
        Natural(shuffle=False),
        BalancedClasses(),
        BalancedClasses(strength=0.4, length=77),
        UniformLabels(),
        UniformLabels(bins=6, length=500),
        UniformLabels(strength=0.5, length="max_count"),
    ],
    ids=str,
)
@pytest.mark.parametrize("labels", [AGES, AGES % 2, np.append(np.zeros(50), 1)], ids=["ages", "halves", "one rare"])
def test_every_sampler_keeps_its_promises(sampler, labels):
    check_sampler(sampler, labels=labels)


def test_a_sampler_that_breaks_them_is_found():
    class Twice(Natural):
        def plan(self, labels, **address):
            plan = super().plan(labels, **address)
            return Plan(rows=np.repeat(plan.rows[::2], 2)[: len(plan)], occurrence=plan.occurrence, strata=plan.strata)

    with pytest.raises(AssertionError, match="drawn"):
        check_sampler(Twice(), labels=AGES)


@given(st.lists(st.floats(-1e300, 1e300) | st.integers(-3, 3), min_size=1, max_size=30), st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_any_label_vector_can_be_made_uniform(labels, epoch):
    sampler = UniformLabels()
    expected = sampler.expected_draws(labels)
    plan = sampler.plan(labels, epoch=epoch, batch_size=4)
    assert len(plan) == len(labels)
    drawn = np.bincount(plan.rows, minlength=len(labels))
    assert (drawn >= np.floor(expected - 1e-9)).all() and (drawn <= np.ceil(expected + 1e-9)).all()
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


def test_uniform_labels_lie_as_near_to_their_target_as_whole_draws_can():
    # 2,000 skewed labels in 20 bins, as issue 5 asks: the systematic line keeps every run of labels exact to one draw
    labels = np.random.default_rng(0).beta(5, 2, 2000) * 70 + 10
    sampler = UniformLabels(bins=20)
    expected = sampler.expected_draws(labels)
    order = np.argsort(labels)
    wanted = np.cumsum(expected[order]) / 2000
    for epoch in range(20):
        fed = np.bincount(sampler.plan(labels, epoch=epoch).rows, minlength=2000)
        assert np.abs(np.cumsum(fed[order]) / 2000 - wanted).max() < 0.001


def test_natural_takes_each_row_once():
    plan = Natural().plan(AGES, seed=1)
    assert sorted(plan.rows.tolist()) == list(range(300))
    assert not plan.occurrence.any() and not plan.strata.any()
    assert not np.array_equal(plan.rows, Natural().plan(AGES, seed=1, epoch=1).rows)
    assert Natural(shuffle=False).plan(["b", "a", "c"]).rows.tolist() == [0, 1, 2]
    assert Natural().plan([np.nan]).rows.tolist() == [0]
    with pytest.raises(LabelError, match="no labels"):
        Natural().plan([])


def test_class_weights_are_scikit_learns():
    weights = class_weights(RARE)
    assert list(weights.values()) == compute_class_weight("balanced", classes=np.array(list(weights)), y=RARE).tolist()
    assert np.mean([weights[label] for label in RARE.tolist()]) == pytest.approx(1)
    assert class_weights([True, False, True, True]) == {False: 2.0, True: 2 / 3}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BalancedClasses(length="max_counts"), "did you mean 'max_count'"),
        (lambda: BalancedClasses(length=0), "length=0"),
        (lambda: UniformLabels(length=True), "length=True"),
        (lambda: UniformLabels(strength=1.5), "strength=1.5"),
        (lambda: BalancedClasses(proportion=1.0), "between 0 and 1"),
        (lambda: BalancedClasses(proportion={"a": 0.5, "b": 0.4}), "add up to 0.9"),
        (lambda: BalancedClasses(proportion={"sick": 0.5, "wel": 0.5}).plan(RARE), "did you mean 'well'"),
        (lambda: BalancedClasses(proportion={"sick": 1}).plan(RARE), "no share for well"),
        (lambda: BalancedClasses(proportion=0.5).plan(list("abc")), "there are 3: a, b, c"),
    ],
)
def test_settings_that_do_not_fit(make, message):
    with pytest.raises(SettingError, match=message):
        make()


def test_what_a_report_says():
    report = BalancedClasses().report(RARE)
    assert report.raw.tolist() == [10, 90] and report.fed.tolist() == [50, 50] and report.expected.tolist() == [50, 50]
    assert (report.largest_repeat, report.never_drawn) == (5, 40)
    assert str(report) == (
        "100 rows -> 100 draws: sick 10 -> 50, well 90 -> 50; most drawn row 5 times, 40 rows not drawn this epoch"
    )
    assert "label bins" in str(UniformLabels().report(AGES))


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
        )
    ] == [
        "every video once an epoch",
        "every video once an epoch, in the order of the table",
        "classes in equal shares",
        "classes 30% positive, 50 draws an epoch",
        "classes a 25%, b 75%",
        "label values or bins equally often, every one as often as the most frequent",
        "20 label bins equally often, strength 0.5",
        "2 label bins equally often",
    ]


def test_a_million_labels():
    labels = np.random.default_rng(0).beta(5, 2, 1_000_000)
    plan = UniformLabels(bins=20).plan(labels, batch_size=16)
    assert len(plan) == 1_000_000


def test_many_values_each_its_own_bin():
    labels = np.random.default_rng(0).integers(0, 20_000, 100_000)
    plan = UniformLabels().plan(labels, batch_size=16)
    fed = np.bincount(plan.strata)
    assert fed.max() - fed.min() <= 1
