from dataclasses import replace

import numpy as np
import pytest
import sklearn.metrics as sk
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import norm

from cinefeed.core.errors import SettingError
from cinefeed.metrics import bootstrap
from cinefeed.metrics.bootstrap import cluster_weights, intervals
from cinefeed.metrics.estimates import Resampling, estimates
from cinefeed.metrics.units import Units
from cinefeed.metrics.weighted import weighted_classes, weighted_regression


def all_weights(clusters, **settings):
    return np.concatenate(list(cluster_weights(np.asarray(clusters), **settings)))


def test_a_resample_draws_as_many_clusters_and_all_units_of_each():
    clusters = np.repeat(np.arange(7), [1, 2, 3, 4, 5, 6, 7])
    weights = all_weights(clusters, resamples=50, seed=0)
    first = np.unique(clusters, return_index=True)[1]
    assert (weights[:, first].sum(axis=1) == 7).all()
    assert (weights == weights[:, first][:, clusters]).all()
    assert len(np.unique(weights, axis=0)) > 40
    # each cluster is drawn once a resample on average; 4 standard errors of a mean of 2000
    many = all_weights(np.arange(10), resamples=2000, seed=1)
    assert np.abs(many.mean(axis=0) - 1).max() < 4 * (0.9 / 2000) ** 0.5


def test_the_same_seed_draws_the_same_however_much_fits_in_memory(monkeypatch):
    clusters = np.arange(30) // 2
    whole = all_weights(clusters, resamples=40, seed=5)
    monkeypatch.setattr(bootstrap, "_MAX_WEIGHTS", 70)
    blocks = list(cluster_weights(clusters, resamples=40, seed=5))
    assert len(blocks) == 20
    assert np.array_equal(np.concatenate(blocks), whole)
    assert not np.array_equal(all_weights(clusters, resamples=40, seed=6), whole)


def test_the_interval_is_the_one_of_a_plain_loop():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 80)
    scores = np.clip(targets * 0.2 + rng.uniform(0, 0.8, 80), 0, 1)
    clusters = np.arange(80) // 4

    def measure(weights):
        return weighted_classes(targets=targets, scores=scores, classes="ab", threshold=0.5, weights=weights)[0]

    result = intervals(measure, clusters=clusters, resamples=60, level=0.9, seed=2)
    loop = []
    for weights in all_weights(clusters, resamples=60, seed=2):
        rows = np.repeat(np.arange(80), weights.astype(int))
        loop.append(sk.roc_auc_score(targets[rows], scores[rows]))
    value = sk.roc_auc_score(targets, scores)
    left_out = np.array([sk.roc_auc_score(targets[clusters != k], scores[clusters != k]) for k in range(20)])
    influence = left_out.mean() - left_out
    skew = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    bias = norm.ppf(np.mean(np.array(loop) < value))
    shifts = bias + norm.ppf([0.05, 0.95])
    expected = np.quantile(loop, norm.cdf(bias + shifts / (1 - skew * shifts)))
    assert (result["auroc"].low, result["auroc"].high) == pytest.approx(tuple(expected))
    assert result["auroc"].dropped == 0


def test_the_interval_is_that_of_scipy():
    wrong = np.random.default_rng(1).exponential(2, 60)

    def measure(weights):
        return weighted_regression(targets=np.zeros(60), scores=wrong, weights=weights)

    result = intervals(measure, clusters=np.arange(60), resamples=20_000, seed=1)["bias"]
    theirs = scipy_bootstrap((wrong,), np.mean, n_resamples=20_000, method="BCa", random_state=2).confidence_interval
    half = (theirs.high - theirs.low) / 2
    assert result.low == pytest.approx(theirs.low, abs=0.03 * half)
    assert result.high == pytest.approx(theirs.high, abs=0.03 * half)


def test_more_clusters_than_groups_of_the_jackknife_have_the_same_interval(monkeypatch):
    wrong = np.random.default_rng(1).exponential(2, 600)

    def measure(weights):
        return weighted_regression(targets=np.zeros(600), scores=wrong, weights=weights)

    grouped = intervals(measure, clusters=np.arange(600), resamples=4000)["bias"]
    monkeypatch.setattr(bootstrap, "_JACKKNIFE_GROUPS", 600)
    each = intervals(measure, clusters=np.arange(600), resamples=4000)["bias"]
    half = (each.high - each.low) / 2
    assert grouped.low == pytest.approx(each.low, abs=0.03 * half)
    assert grouped.high == pytest.approx(each.high, abs=0.03 * half)


@pytest.mark.parametrize("clusters", [12, 40, 150])
def test_an_interval_contains_its_value(clusters):
    """Resamples of a calibration error are larger than its value; their percentiles often leave it out."""
    rng = np.random.default_rng(clusters)
    intervals_seen = 0
    for study in range(20):
        sick = rng.integers(0, 2, clusters)
        score = np.clip(rng.beta(2, 2, clusters) * 0.8 + 0.2 * sick, 0, 1)
        units = Units(
            names=tuple(map(str, range(clusters))),
            targets=sick,
            scores=score,
            clusters=np.arange(clusters),
            clips=clusters,
            videos=clusters,
            missing=0,
        )
        resampling = Resampling(resamples=300, seed=study)
        classes = estimates(units, classes=("well", "sick"), resampling=resampling)
        numbers = estimates(replace(units, targets=sick.astype(float)), resampling=resampling)
        for result in (classes["metrics"], *classes["by_class"].values(), numbers["metrics"]):
            for name, each in result.items():
                if each["low"] is None:
                    assert each["reason"], name
                else:
                    assert each["low"] <= each["value"] <= each["high"], (name, each)
                    intervals_seen += 1
    assert intervals_seen > 250


def test_biased_resamples_give_a_reason_instead_of_an_interval():
    """Perfect calibration in every bin: an error of 0, which no resample of units reaches."""
    score = np.repeat([0.25, 0.75], 40)
    sick = np.tile([1, 0, 0, 0], 10).tolist() + np.tile([0, 1, 1, 1], 10).tolist()

    def measure(weights):
        return weighted_classes(targets=sick, scores=score, classes="ab", threshold=0.5, weights=weights)[0]

    result = intervals(measure, clusters=np.arange(80), resamples=200)
    assert result["ece"].reason.endswith("of them are above the value")
    assert np.isnan(result["ece"].low)
    assert not result["accuracy"].reason


def test_the_interval_of_a_mean_is_the_textbooks():
    wrong = np.random.default_rng(1).normal(2, 5, 400)

    def measure(weights):
        return weighted_regression(targets=np.zeros(400), scores=wrong, weights=weights)

    result = intervals(measure, clusters=np.arange(400), resamples=2000)["bias"]
    half = 1.96 * wrong.std(ddof=1) / 20
    assert result.low == pytest.approx(wrong.mean() - half, abs=0.1 * half)
    assert result.high == pytest.approx(wrong.mean() + half, abs=0.1 * half)


def test_videos_of_one_patient_do_not_narrow_the_interval():
    wrong = np.repeat(np.random.default_rng(1).normal(0, 5, 40), 10)  # ten videos a patient, all alike

    def measure(weights):
        return weighted_regression(targets=np.zeros(400), scores=wrong, weights=weights)

    by_patient = intervals(measure, clusters=np.arange(400) // 10)["bias"]
    by_video = intervals(measure, clusters=np.arange(400))["bias"]
    assert by_patient.high - by_patient.low > 2.5 * (by_video.high - by_video.low)  # sqrt(10) = 3.2


def test_resamples_that_do_not_define_a_metric_are_dropped_and_counted():
    targets, scores = np.array([1] + [0] * 19), np.linspace(1, 0, 20)

    def measure(weights):
        return weighted_classes(targets=targets, scores=scores, classes="ab", threshold=0.5, weights=weights)[0]

    weights = all_weights(np.arange(20), resamples=200, seed=0)
    result = intervals(measure, clusters=np.arange(20), resamples=200, seed=0)
    assert result["auroc"].dropped == int((weights[:, 0] == 0).sum()) > 50
    assert result["auroc"].low == result["auroc"].high == 1
    assert result["accuracy"].dropped == 0


def test_no_interval_for_mostly_undefined_metrics():
    def measure(weights):
        return {"often": np.where(np.arange(len(weights)) % 3 == 0, 1.0, np.nan), "always": weights[:, 0]}

    result = intervals(measure, clusters=np.arange(12), resamples=90)
    assert (
        result["often"].reason
        == "undefined in 60 of 90 resamples, for example because they contain one class or one value only"
    )
    assert np.isnan(result["often"].low)
    assert not result["always"].reason
    few = intervals(measure, clusters=np.arange(18) // 2, resamples=90)["always"]
    assert few.reason == "an interval needs at least 10 units to resample; found 9"


@pytest.mark.parametrize(("settings", "message"), [({"resamples": 0}, "too small"), ({"level": 95}, "between 0 and 1")])
def test_settings_that_make_no_interval(settings, message):
    with pytest.raises(SettingError, match=message):
        intervals(lambda weights: {"a": weights[:, 0]}, clusters=np.arange(12), **settings)


def test_intervals_have_nominal_coverage():
    rng, held = np.random.default_rng(0), 0
    for study in range(60):  # 100 patients with three videos each, who share part of their noise
        sick, own = np.repeat(rng.integers(0, 2, 100), 3), np.repeat(rng.normal(0, 0.5**0.5, 100), 3)
        score = 1 / (1 + np.exp(-(sick + own + rng.normal(0, 1, 300))))

        def measure(weights, targets=sick, scores=score):
            return weighted_classes(targets=targets, scores=scores, classes="ab", threshold=0.5, weights=weights)[0]

        result = intervals(measure, clusters=np.arange(300) // 3, resamples=200, seed=study)["auroc"]
        held += result.low <= 0.7181 <= result.high  # the normal distribution at 1 / sqrt(2 (1 + 0.5))
    assert 51 <= held < 60
