import numpy as np
import pyarrow as pa
import pytest

from cinefeed.core.errors import LabelError, SettingError
from cinefeed.data.label_types import label_type
from cinefeed.feed.labels import Targets, read_targets


def read(values, *, task=None, classes=None, type=None):
    column = pa.chunked_array([pa.array(values, type=type)])
    ids = pa.chunked_array([[f"id{number}" for number in range(len(values))]])
    is_classes = classes is not None or label_type(column).is_classes
    return read_targets(column, name="age", ids=ids, task=task, classes=classes, is_classes=is_classes)


def test_numbers_are_a_regression():
    targets = read([1, 2, 3])
    assert targets.task == "regression" and targets.values.dtype == np.float32
    assert targets.labels.tolist() == [1, 2, 3]


def test_text_is_classes_in_sorted_order():
    targets = read(["b", "a", "b"])
    assert (targets.task, targets.classes, targets.values.tolist()) == ("binary", ("a", "b"), [1, 0, 1])
    assert targets.labels.tolist() == ["b", "a", "b"]
    assert read(["b", "a", "c"]).task == "multiclass"


@pytest.mark.parametrize("values", [[10, 2, 0, 1, 10], [10.0, 2.0, 0.0, 1.0, 10.0]])
def test_classes_that_are_numbers_ascend(values):
    """As text 10 came before 2, so that 30 classes from 0 had other numbers than their labels."""
    targets = read(values, task="multiclass")
    assert targets.classes == ("0", "1", "2", "10")
    assert targets.values.tolist() == [3, 2, 0, 1, 3]


def test_booleans_are_classes():
    assert read([True, False]).classes == ("false", "true")


def test_zeros_and_ones_are_two_classes_and_a_task_wins():
    for values in ([0, 1, 1], [0.0, 1.0, 1.0]):
        assert (read(values).task, read(values).classes) == ("binary", ("0", "1"))
        assert read(values, task="regression").values.tolist() == [0, 1, 1]


def test_the_task_can_be_told():
    assert read([0, 1, 1], task="binary").classes == ("0", "1")
    assert read([True, False], task="regression").values.tolist() == [1, 0]
    assert read(["a", "b"], task="multiclass").task == "multiclass"


def test_class_order_can_be_told():
    assert read(["b", "a"], classes=("b", "a")).values.tolist() == [0, 1]


@pytest.mark.parametrize("values", [[1.0, None], [1.0, float("nan")]])
def test_a_missing_label_names_its_row(values):
    with pytest.raises(LabelError, match=r"1 of 2 rows has no 'age' label: row 1 \(id1\); .*drop_missing\('age'\)"):
        read(values)


def test_labels_that_are_all_missing_are_said_to_be():
    with pytest.raises(LabelError, match=r"none of 2 rows has a 'age' label; check the label table"):
        read([None, None])


def test_an_infinite_label_is_refused():
    with pytest.raises(LabelError, match="infinite"):
        read([1.0, float("inf")])


def test_one_class_is_refused():
    with pytest.raises(LabelError, match="1 class"):
        read(["a", "a"])


def test_three_classes_are_not_binary():
    with pytest.raises(LabelError, match="3 classes"):
        read(["a", "b", "c"], task="binary")


def test_a_class_that_is_not_listed_names_its_row():
    with pytest.raises(LabelError, match=r"row 2 \(id2\)"):
        read(["a", "b", "c"], classes=("a", "b"))
    with pytest.raises(
        LabelError, match=r"such as 'Regular', that is none of ill, regular: .* mean 'regular'\? correct"
    ):
        read(["ill", "Regular"], classes=("ill", "regular"))


def test_text_is_no_regression():
    with pytest.raises(LabelError, match="needs numbers"):
        read(["a", "b"], task="regression")


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(SettingError, match="regression"):
        read([1, 2], task="regresion")


def test_unknown_targets():
    assert np.isnan(Targets.unknown(2, task="regression", classes=()).values).all()
    assert Targets.unknown(2, task="binary", classes=("a", "b")).values.tolist() == [-1, -1]
