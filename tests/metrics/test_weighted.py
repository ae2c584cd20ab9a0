"""Weights of one are the plain metrics; any weights are scikit-learn's; whole weights are repeated rows."""

import numpy as np
import pytest
import sklearn.metrics as sk

from cinefeed.metrics import calibration, classification_metrics, metrics_by_class, regression_metrics
from cinefeed.metrics.weighted import weighted_classes, weighted_regression

rng = np.random.default_rng(3)
SICK = rng.integers(0, 2, 60)
RISKS = np.round(np.clip(SICK * 0.3 + rng.uniform(0, 0.7, 60), 0, 1), 1)  # many are equal
KINDS = rng.integers(0, 3, 60)
SHARES = rng.dirichlet([1, 1, 1], 60) * 0.6 + np.eye(3)[KINDS] * 0.4
AGES = rng.normal(60, 12, 60)
GUESSES = AGES * 0.7 + rng.normal(20, 6, 60)
WEIGHTS = rng.integers(0, 4, (5, 60)).astype(float)
ONES = np.ones((1, 60))
WORDS = ["regular", "pneumonia", "covid"]


def firsts(metrics):
    return {name: values[0] for name, values in metrics.items()}


def test_weights_of_one_are_the_plain_metrics():
    result = firsts(weighted_regression(targets=AGES, scores=GUESSES, weights=ONES))
    assert result == pytest.approx(dict(regression_metrics(targets=AGES, scores=GUESSES)))
    for targets, scores, classes in ((SICK, RISKS, ["no", "yes"]), (KINDS, SHARES, WORDS)):
        data = {"targets": targets, "scores": scores, "classes": classes}
        whole, by_class = weighted_classes(**data, threshold=0.4, weights=ONES)
        plain = classification_metrics(**data, threshold=0.4) | {"ece": calibration(**data)["ece"]}
        assert firsts(whole) == pytest.approx(plain)
        for name, metrics in metrics_by_class(**data, threshold=0.4).items():
            assert {key: by_class[name][key][0] for key in metrics} == pytest.approx(metrics)


def test_any_weights_are_scikit_learns():
    result, _ = weighted_classes(targets=SICK, scores=RISKS, classes=["no", "yes"], threshold=0.5, weights=WEIGHTS)
    positive = RISKS >= 0.5
    for k, weights in enumerate(WEIGHTS):
        kwargs = {"sample_weight": weights}
        assert result["auroc"][k] == pytest.approx(sk.roc_auc_score(SICK, RISKS, **kwargs))
        assert result["average_precision"][k] == pytest.approx(sk.average_precision_score(SICK, RISKS, **kwargs))
        assert result["f1"][k] == pytest.approx(sk.f1_score(SICK, positive, **kwargs))
        assert result["balanced_accuracy"][k] == pytest.approx(sk.balanced_accuracy_score(SICK, positive, **kwargs))
        assert result["sensitivity"][k] == pytest.approx(sk.recall_score(SICK, positive, **kwargs))
        assert result["specificity"][k] == pytest.approx(sk.recall_score(SICK, positive, pos_label=0, **kwargs))
        assert result["accuracy"][k] == pytest.approx(sk.accuracy_score(SICK, positive, **kwargs))
    line = weighted_regression(targets=AGES, scores=GUESSES, weights=WEIGHTS)
    for k, weights in enumerate(WEIGHTS):
        assert line["r2"][k] == pytest.approx(sk.r2_score(AGES, GUESSES, sample_weight=weights))
        assert line["rmse"][k] == pytest.approx(sk.root_mean_squared_error(AGES, GUESSES, sample_weight=weights))
        assert line["mae"][k] == pytest.approx(sk.mean_absolute_error(AGES, GUESSES, sample_weight=weights))


@pytest.mark.parametrize("k", range(len(WEIGHTS)))
def test_whole_weights_are_repeated_rows(k):
    rows = np.repeat(np.arange(60), WEIGHTS[k].astype(int))
    line = weighted_regression(targets=AGES, scores=GUESSES, weights=WEIGHTS[k : k + 1])
    assert firsts(line) == pytest.approx(dict(regression_metrics(targets=AGES[rows], scores=GUESSES[rows])))
    result, by_class = weighted_classes(
        targets=KINDS, scores=SHARES, classes=WORDS, threshold=0.5, weights=WEIGHTS[k : k + 1]
    )
    data = {"targets": KINDS[rows], "scores": SHARES[rows], "classes": WORDS}
    assert firsts(result) == pytest.approx(classification_metrics(**data) | {"ece": calibration(**data)["ece"]})
    for name, metrics in metrics_by_class(**data).items():
        assert {key: by_class[name][key][0] for key in metrics} == pytest.approx(metrics)


def test_what_a_resample_does_not_define_is_nan():
    weights = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    result, by_class = weighted_classes(
        targets=[0, 0, 1, 1], scores=[0.1, 0.2, 0.3, 0.9], classes=["no", "yes"], threshold=0.5, weights=weights
    )
    lost = {name for name, values in result.items() if np.isnan(values[0])}
    assert lost == {"f1", "average_precision", "auroc", "balanced_accuracy", "sensitivity"}
    assert not any(np.isnan(values[1]) for values in result.values())
    assert by_class["no"]["sensitivity"][0] == 1
    ages = {"targets": [60.1, 60.1, 60.1, 70.0], "scores": [1.0, 2.0, 3.0, 4.0]}
    line = weighted_regression(**ages, weights=np.eye(4))
    assert np.isnan(line["r2"]).all() and np.isnan(line["sd"]).all() and np.isnan(line["pearson_r"]).all()
    same = weighted_regression(**ages, weights=np.array([[2.0, 1, 4, 0]]))
    assert np.isnan(same["r2"]).all() and not np.isnan(same["sd"]).any()


def test_a_resample_without_a_class_is_that_set_of_units():
    rows = KINDS != 2
    weights = np.array([rows.astype(float), (KINDS == 0).astype(float)])
    result, by_class = weighted_classes(targets=KINDS, scores=SHARES, classes=WORDS, threshold=0.5, weights=weights)
    data = {"targets": KINDS[rows], "scores": SHARES[rows], "classes": WORDS}
    expected = classification_metrics(**data) | {"ece": calibration(**data)["ece"]}
    assert firsts(result) == pytest.approx(expected)
    assert np.isnan(by_class["covid"]["auroc"][0]) and not np.isnan(by_class["regular"]["auroc"][0])
    undefined = {name for name, values in result.items() if np.isnan(values[1])}  # of one class alone
    assert undefined == {"f1", "average_precision", "auroc", "balanced_accuracy", "specificity"}


def test_many_classes_of_few_units_have_intervals():
    """Nine of ten resamples of 90 units had none of one of 30 classes, and no macro average had an interval."""
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(30), 3)
    scores = rng.dirichlet(np.ones(30), 90) + 0.2 * np.eye(30)[targets]
    scores /= scores.sum(axis=1, keepdims=True)
    weights = rng.multinomial(90, np.full(90, 1 / 90), 200).astype(float)
    names = [str(name) for name in range(30)]
    result, _ = weighted_classes(targets=targets, scores=scores, classes=names, threshold=0.5, weights=weights)
    assert all(np.isfinite(values).all() for values in result.values())
    assert np.array_equal(result["balanced_accuracy"], result["sensitivity"])
