import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_class_weight

import cinefeed as cf
from cinefeed.core.errors import LabelError
from cinefeed.data.sampling import BalancedClasses, class_weights, correct_prior, prior_from_report

RARE = np.array(["well"] * 90 + ["sick"] * 10)


def test_class_weights_are_scikit_learns():
    weights = class_weights(RARE)
    assert list(weights.values()) == compute_class_weight("balanced", classes=np.array(list(weights)), y=RARE).tolist()
    assert np.mean([weights[label] for label in RARE.tolist()]) == pytest.approx(1)
    assert class_weights([True, False, True, True]) == {False: 2.0, True: 2 / 3}


@pytest.mark.parametrize(
    "labels", [["a", "b", "b", "b"], [0, 1, 1, 1], [0.0, 1.0, 1.0, 1.0], [False, True, True, True]]
)
def test_class_weights_by_the_numbers_of_a_feed(labels):
    videos = cf.Manifest.from_arrays(np.zeros((4, 5, 8, 8), np.uint8), {"sick": labels})
    feed = cf.Feed(videos, target="sick", clip=cf.Clip(frames=4), frame=cf.Frame(height=8, width=8, channels=1))
    assert class_weights(videos.column("sick"), classes=feed.spec.classes) == {0: 2.0, 1: 2 / 3}
    assert class_weights(labels, classes=feed.spec.classes[::-1]) == {1: 2.0, 0: 2 / 3}
    with pytest.raises(LabelError, match="list all classes"):
        class_weights(labels, classes=["c", "d"])


def test_two_classes_as_one_column_or_two():
    one = np.array([0.0, 0.25, 0.5, 1.0])
    corrected = correct_prior(one, draws=[50, 50], raw=[0.9, 0.1])
    two = correct_prior(np.stack([1 - one, one], axis=1), draws=[1, 1], raw=[90, 10])
    assert np.allclose(two[:, 1], corrected) and np.allclose(two.sum(axis=1), 1)
    assert corrected[[0, 3]].tolist() == [0, 1] and corrected[2] == pytest.approx(0.1)
    odds = corrected[1] / (1 - corrected[1])
    assert odds == pytest.approx(1 / 3 / 9)
    assert np.allclose(correct_prior(corrected, draws=[90, 10], raw=[50, 50]), one)


def test_correction_calibrates_a_model_of_balanced_draws():
    rng = np.random.default_rng(0)
    classes = (rng.random(20_000) < 0.05).astype(int)
    features = rng.normal(classes * 1.5)[:, None]
    sampler = BalancedClasses()
    rows = sampler.plan(classes).rows
    risk = LogisticRegression().fit(features[rows], classes[rows]).predict_proba(features)
    balance = json.loads(json.dumps(sampler.report(classes).as_dict()))
    corrected = correct_prior(risk, **prior_from_report(balance, classes=["0", "1"]))
    assert risk[:, 1].mean() > 0.2  # over-sampling overestimates risk
    assert corrected[:, 1].mean() == pytest.approx(classes.mean(), rel=0.05)
    assert np.array_equal(np.argsort(risk[:, 1]), np.argsort(corrected[:, 1]))


def test_absent_classes_are_unchanged():
    corrected = correct_prior([[0.5, 0.25, 0.25]], draws=[1, 1, 0], raw=[1, 1, 0])
    assert corrected.tolist() == [[0.5, 0.25, 0.25]]
    gone = correct_prior([[1.0, 0.0]], draws=[1, 1], raw=[0, 1])  # certain of a class with a share of 0: unchanged
    assert gone.tolist() == [[1.0, 0.0]]


def test_prior_from_report_is_in_the_order_of_classes():
    balance = BalancedClasses().report(RARE).as_dict()
    prior = prior_from_report(balance, classes=["well", "odd", "sick"])
    assert {name: each.tolist() for name, each in prior.items()} == {"draws": [50, 0, 50], "raw": [90, 0, 10]}
    with pytest.raises(LabelError, match="the balanced classes are sick, well"):
        prior_from_report(balance, classes=["a", "b"])


@pytest.mark.parametrize(
    ("probabilities", "draws", "raw", "message"),
    [
        ([0.5], [1, 1, 1], [1, 1], "draws has shape"),
        ([[0.5, 0.5]], [1, 1], [1], "raw has shape"),
        (0.5, [1, 1], [1, 1], "draws has shape"),
        ([1.5], [1, 1], [1, 1], "from 0 to 1"),
        ([np.nan], [1, 1], [1, 1], "from 0 to 1"),
        ([0.5], [0, 1], [1, 1], "class 0 has a share of 0.5 in the data but was never drawn"),
        ([0.5], [0, 0], [1, 1], "at least one above 0"),
        ([0.5], [1, 1], [-1, 1], "counts or shares"),
    ],
)
def test_invalid_input_is_rejected(probabilities, draws, raw, message):
    with pytest.raises(LabelError, match=message):
        correct_prior(probabilities, draws=draws, raw=raw)
