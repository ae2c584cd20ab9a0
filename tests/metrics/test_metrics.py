import numpy as np
import pytest
import sklearn.metrics as sk

from cinefeed.core.errors import LabelError
from cinefeed.metrics import (
    best_threshold,
    classification_metrics,
    confusion_matrix,
    metrics_by_class,
    predicted_classes,
    regression_metrics,
)

RNG = np.random.default_rng(0)
AGES = RNG.normal(60, 12, 80)
GUESSES = AGES * 0.7 + RNG.normal(20, 6, 80)
SICK = RNG.integers(0, 2, 80)
RISKS = np.clip(SICK * 0.3 + RNG.uniform(0, 0.7, 80), 0, 1)
KINDS = RNG.integers(0, 3, 80)
SHARES = RNG.dirichlet([1, 1, 1], 80) * 0.6 + np.eye(3)[KINDS] * 0.4
WORDS = ["regular", "pneumonia", "covid"]


def test_regression_is_scikit_learns():
    metrics = regression_metrics(targets=AGES, scores=GUESSES[:, None])
    assert metrics == {
        "r2": sk.r2_score(AGES, GUESSES),
        "rmse": sk.mean_squared_error(AGES, GUESSES) ** 0.5,
        "mae": sk.mean_absolute_error(AGES, GUESSES),
        "pearson_r": pytest.approx(np.corrcoef(AGES, GUESSES)[0, 1]),
        "bias": pytest.approx(GUESSES.mean() - AGES.mean()),
        "sd": pytest.approx((GUESSES - AGES).std(ddof=1)),
    }
    assert metrics.reasons == {}


def test_two_classes_are_scikit_learns():
    predicted = (RISKS >= 0.5).astype(int)
    expected = {
        "f1": sk.f1_score(SICK, predicted),
        "average_precision": sk.average_precision_score(SICK, RISKS),
        "auroc": sk.roc_auc_score(SICK, RISKS),
        "balanced_accuracy": sk.balanced_accuracy_score(SICK, predicted),
        "sensitivity": sk.recall_score(SICK, predicted),
        "specificity": sk.recall_score(SICK, predicted, pos_label=0),
        "accuracy": sk.accuracy_score(SICK, predicted),
    }
    for scores in (RISKS, RISKS[:, None], np.stack([1 - RISKS, RISKS], axis=1)):
        assert classification_metrics(targets=SICK, scores=scores, classes=["no", "yes"]) == pytest.approx(expected)
    matrix = confusion_matrix(targets=SICK, scores=RISKS, classes=["no", "yes"])
    assert np.array_equal(matrix, sk.confusion_matrix(SICK, predicted))


def test_three_classes_are_scikit_learns():
    predicted = SHARES.argmax(axis=1)
    assert classification_metrics(targets=KINDS, scores=SHARES, classes=WORDS) == pytest.approx(
        {
            "f1": sk.f1_score(KINDS, predicted, average="macro"),
            "average_precision": sk.average_precision_score(np.eye(3)[KINDS], SHARES),
            "auroc": sk.roc_auc_score(KINDS, SHARES, multi_class="ovr"),
            "balanced_accuracy": sk.balanced_accuracy_score(KINDS, predicted),
            "sensitivity": sk.recall_score(KINDS, predicted, average="macro"),
            "specificity": np.mean([sk.recall_score(k == KINDS, predicted == k, pos_label=0) for k in range(3)]),
            "accuracy": sk.accuracy_score(KINDS, predicted),
        }
    )
    matrix = confusion_matrix(targets=KINDS, scores=SHARES, classes=WORDS)
    assert np.array_equal(matrix, sk.confusion_matrix(KINDS, predicted))


def test_a_class_that_does_not_occur_is_left_out_of_the_means():
    rest = KINDS < 2
    metrics = classification_metrics(targets=KINDS[rest], scores=SHARES[rest], classes=WORDS)
    aurocs = [sk.roc_auc_score(KINDS[rest] == k, SHARES[rest, k]) for k in (0, 1)]
    assert metrics["auroc"] == pytest.approx(np.mean(aurocs))
    assert not metrics.reasons
    assert confusion_matrix(targets=KINDS[rest], scores=SHARES[rest], classes=WORDS)[2].sum() == 0


@pytest.mark.parametrize(
    ("targets", "scores", "reasons"),
    [
        ([1.0], [2.0], dict.fromkeys(["r2", "pearson_r", "sd"], "only one sample")),
        ([1.0, 1.0], [2.0, 3.0], {"r2": "all targets are equal", "pearson_r": "all targets are equal"}),
        ([1.0, 2.0], [3.0, 3.0], {"pearson_r": "all scores are equal"}),
    ],
)
def test_what_a_set_does_not_define_is_nan_with_a_reason(targets, scores, reasons):
    metrics = regression_metrics(targets=targets, scores=scores)
    assert metrics.reasons == reasons
    assert {name for name, value in metrics.items() if np.isnan(value)} == set(reasons)


@pytest.mark.parametrize("target", [0, 1])
def test_one_class_alone(target):
    metrics = classification_metrics(targets=[target] * 4, scores=[0.1, 0.2, 0.6, 0.9], classes=["no", "yes"])
    assert metrics["accuracy"] == 0.5
    assert metrics[["specificity", "sensitivity"][target]] == 0.5
    assert metrics.reasons["auroc"] == f"all targets are {['no', 'yes'][target]!r}"
    three = classification_metrics(targets=[target] * 4, scores=SHARES[:4], classes=WORDS)
    assert np.isnan(three["auroc"])
    for each in (metrics, three):
        assert {name for name, value in each.items() if np.isnan(value)} == set(each.reasons)


def test_a_threshold_moves_what_is_called_positive():
    risky = sk.f1_score(SICK, RISKS >= 0.3)
    assert classification_metrics(targets=SICK, scores=RISKS, classes=["no", "yes"], threshold=0.3)["f1"] == risky
    matrix = confusion_matrix(targets=SICK, scores=RISKS, classes=["no", "yes"], threshold=0.3)
    assert np.array_equal(matrix, sk.confusion_matrix(SICK, RISKS >= 0.3))


def test_the_best_threshold_is_the_best_of_all():
    threshold = best_threshold(targets=SICK, scores=RISKS)
    assert sk.f1_score(SICK, threshold <= RISKS) == max(sk.f1_score(SICK, each <= RISKS) for each in RISKS)
    assert threshold in RISKS


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([0.2, 0.4, 0.6, 0.8], 0.6), ([0.2, 0.4, 0.4, 0.4], 0.4), ([0.9, 0.8, 0.7, 0.6], 0.6)],
)
def test_one_threshold_of_a_simple_set(scores, expected):
    assert best_threshold(targets=[0, 0, 1, 1], scores=scores) == expected


@pytest.mark.parametrize(("high", "low", "expected"), [(0.9, 0.3, 0.3), (0.6, 0.1, 0.6), (0.75, 0.25, 0.25)])
def test_of_thresholds_that_are_as_good_the_nearest_to_half_is_taken(high, low, expected):
    # from `high`, one of two is found and nothing else: 2/3; from `low`, two are found and two others: 2/3
    targets, scores = [1, 0, 0, 1], [high, 0.55, 0.45, low]
    assert sk.f1_score(targets, np.array(scores) >= high) == sk.f1_score(targets, np.array(scores) >= low)
    assert best_threshold(targets=targets, scores=scores) == expected


def test_a_threshold_needs_both_classes():
    with pytest.raises(LabelError, match="both classes"):
        best_threshold(targets=[1, 1], scores=[0.1, 0.2])


def test_each_class_against_the_rest_is_scikit_learns():
    predicted = SHARES.argmax(axis=1)
    result = metrics_by_class(targets=KINDS, scores=SHARES, classes=WORDS)
    for k, name in enumerate(WORDS):
        truth = k == KINDS
        assert result[name] == pytest.approx(
            {
                "f1": sk.f1_score(truth, predicted == k),
                "average_precision": sk.average_precision_score(truth, SHARES[:, k]),
                "auroc": sk.roc_auc_score(truth, SHARES[:, k]),
                "sensitivity": sk.recall_score(truth, predicted == k),
                "specificity": sk.recall_score(~truth, predicted != k),
            }
        )
    absent = metrics_by_class(targets=[0, 1], scores=SHARES[:2], classes=WORDS)["covid"]
    assert absent.reasons["sensitivity"] == "no target is 'covid'"
    assert absent["specificity"] >= 0


def test_a_model_that_says_one_class_only_has_an_f1_of_nought():
    assert classification_metrics(targets=[0, 1], scores=[0.1, 0.1], classes=["no", "yes"])["f1"] == 0


def test_half_is_positive():
    assert predicted_classes(np.array([0.49, 0.5])).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("targets", "scores", "classes", "message"),
    [
        ([0, 1], [0.5, np.nan], ["a", "b"], "1 of 2 scores are NaN or infinite .the first is sample 1"),
        ([0, 2], [0.5, 0.5], ["a", "b"], "class numbers from 0 to 1"),
        ([0, -1], [0.5, 0.5], ["a", "b"], "class numbers from 0 to 1"),
        ([0.0, 1.0], [0.5, 0.5], ["a", "b"], "class numbers"),
        ([0, 1], [0.5, 0.5, 0.5], ["a", "b"], "one target and one score per sample"),
        ([], [], ["a", "b"], "one target and one score per sample"),
        ([0, 1], [0.5, 0.5], ["a", "b", "c"], r"need scores of \(2, 3\)"),
        ([0, 0], [0.5, 0.5], ["a"], "at least two classes"),
    ],
)
def test_class_scores_that_cannot_be_measured(targets, scores, classes, message):
    with pytest.raises(LabelError, match=message):
        classification_metrics(targets=targets, scores=scores, classes=classes)


@pytest.mark.parametrize(
    ("targets", "scores", "message"),
    [
        ([1.0, np.nan], [1.0, 1.0], "1 of 2 targets are NaN"),
        ([1.0, 2.0], [np.inf, 1.0], "1 of 2 scores are NaN"),
        ([1.0, 2.0], [[1.0, 2.0], [1.0, 2.0]], "one score per sample"),
    ],
)
def test_scores_that_cannot_be_measured(targets, scores, message):
    with pytest.raises(LabelError, match=message):
        regression_metrics(targets=targets, scores=scores)
