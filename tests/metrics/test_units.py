import numpy as np
import pyarrow as pa
import pytest

from cinefeed.core.errors import ColumnError, LabelError, TableError
from cinefeed.metrics import predictions_of, target_columns, units_of

AGE = target_columns("age", task="regression")


def ages(**columns):
    """Return predictions of seven clips of five videos of three patients."""
    table = {
        "id": ["a1", "a1", "a1", "a2", "b1", "c1", "c2"],
        "split": ["test"] * 7,
        "target": [50.0, 50.0, 50.0, 50.0, 60.0, 70.0, 70.0],
        "score": [40.0, 50.0, 60.0, 90.0, 61.0, 72.0, 74.0],
        "patient": ["a", "a", "a", "a", "b", "c", "c"],
        "site": ["x", "x", "x", "x", "x", "y", "y"],
    }
    return predictions_of(pa.table(table | columns), [AGE])


def test_clips_are_averaged_to_videos():
    units = units_of(ages(), "age")
    assert units.names == ("a1", "a2", "b1", "c1", "c2")
    assert units.targets.tolist() == [50, 50, 60, 70, 70]
    assert units.scores.tolist() == [50, 90, 61, 72, 74]
    assert (units.clips, units.videos, units.num_clusters, units.missing) == (7, 5, 5, 0)


def test_videos_of_a_unit_count_alike_however_many_clips_they_have():
    units = units_of(ages(), AGE, unit="patient")
    assert units.names == ("a", "b", "c")
    assert units.scores.tolist() == [70, 61, 73]  # a: videos of 50 and 90, not clips of 40, 50, 60 and 90
    assert (units.clips, units.videos, units.num_clusters) == (7, 5, 3)


def test_units_of_one_cluster_share_its_number():
    units = units_of(ages(), AGE, cluster="patient")
    assert units.clusters.tolist() == [0, 0, 1, 2, 2]
    units = units_of(ages(), AGE, unit="patient", cluster="site")
    assert units.clusters.tolist() == [0, 0, 1]
    assert units_of(ages(), AGE, unit="patient", cluster="patient").num_clusters == 3


def test_the_order_of_rows_does_not_matter():
    predictions = ages()
    turned = predictions_of(predictions.table.take(list(range(7))[::-1]), [AGE])
    one, other = units_of(predictions, AGE, unit="patient"), units_of(turned, AGE, unit="patient")
    assert one.names == other.names and one.scores.tolist() == other.scores.tolist()


def test_probabilities_of_classes_are_averaged_each():
    table = pa.table(
        {"id": ["a", "a", "b"], "split": ["test"] * 3, "target": ["x", "x", "z"], "score_x": [0.2, 0.4, 0.1]}
        | {"score_y": [0.3, 0.5, 0.1], "score_z": [0.5, 0.1, 0.8]}
    )
    units = units_of(predictions_of(table, [target_columns("k", task="multiclass", classes="xyz")]), "k")
    assert units.scores == pytest.approx(np.array([[0.3, 0.4, 0.3], [0.1, 0.1, 0.8]]))
    assert units.targets.tolist() == [0, 2]


def test_videos_without_a_label_are_left_out_and_counted():
    units = units_of(ages(target=[50.0, 50.0, 50.0, None, 60.0, None, None]), AGE, unit="patient")
    assert units.names == ("a", "b") and units.scores.tolist() == [50, 61]
    assert (units.videos, units.missing) == (2, 3)
    none = units_of(ages(target=pa.nulls(7, pa.float64())), AGE, unit="patient", cluster="site")
    assert none.names == () and none.missing == 5 and none.num_clusters == 0 and none.scores.shape == (0,)


@pytest.mark.parametrize(
    ("columns", "kwargs", "error", "message"),
    [
        ({"target": [50.0, 51, 50, 50, 60, 70, 70]}, {}, LabelError, r"a1: the video's clips differ .*50.0 and 51.0"),
        (
            {"target": [50.0, 50, 50, 53, 60, 70, 71]},
            {"unit": "patient"},
            LabelError,
            r"a: its videos differ in 'target'; use a smaller unit than 'patient'.*\(50.0 and 53.0\), and 1 more",
        ),
        ({"patient": list("aabcdef")}, {"unit": "patient"}, TableError, "a1: the video has two values of 'patient'"),
        (
            {"site": list("xxxyxyy")},
            {"unit": "patient", "cluster": "site"},
            TableError,
            "a: the unit has two values of 'site'",
        ),
        ({"patient": [*"aaaab", None, None]}, {"unit": "patient"}, TableError, r"2 of 7 rows have no 'patient' .*c1"),
        ({}, {"unit": "patent"}, ColumnError, "did you mean 'patient'"),
        ({}, {"cluster": "sight"}, ColumnError, "no column 'sight'; did you mean 'site'"),
    ],
)
def test_invalid_units(columns, kwargs, error, message):
    with pytest.raises(error, match=message):
        units_of(ages(**columns), AGE, **kwargs)
