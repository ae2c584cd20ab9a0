import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cinefeed.core.errors import ColumnError, LabelError, SettingError, TableError
from cinefeed.metrics import predictions_of, read_predictions, target_columns

NAN = float("nan")


def several():
    """Return predictions of an age, a finding and a view, with missing labels."""
    table = pa.table(
        {
            "id": ["a", "a", "b", "c"],
            "path": ["a.mp4", "a.mp4", "b.mp4", "c.mp4"],
            "split": ["test", "test", "val", "test"],
            "clip": pa.array([0, 1, 0, 0], pa.int32()),
            "target_age": [61.0, 61.0, None, NAN],
            "target_sick": ["yes", "yes", "no", None],
            "target_view": [None, None, "4ch", "2ch"],
            "score_age": [60.0, 62.0, 50.0, 40.0],
            "score_sick": [0.9, 0.7, 0.2, 0.4],
            "score_view_2ch": [0.1, 0.1, 0.1, 0.1],
            "score_view_4ch": [0.2, 0.2, 0.2, 0.2],
            "score_view_psax": [0.7, 0.7, 0.7, 0.7],
        }
    )
    columns = [
        target_columns("age", task="regression", several=True),
        target_columns("sick", task="binary", classes=["no", "yes"], several=True),
        target_columns("view", task="multiclass", classes=["2ch", "4ch", "psax"], several=True),
    ]
    return predictions_of(table, columns)


def written(path, text):
    path.write_text(text)
    return path


def test_schema_contains_the_targets(tmp_path):
    before = several()
    pq.write_table(before.table, tmp_path / "predictions.parquet")
    after = read_predictions(tmp_path / "predictions.parquet")
    assert after.targets == before.targets
    assert after.table.schema.equals(before.table.schema, check_metadata=True)
    assert repr(after.table.to_pydict()) == repr(before.table.to_pydict())  # NaN differs from itself
    notes = json.loads(pq.read_schema(tmp_path / "predictions.parquet").metadata[b"cinefeed"])
    assert notes["targets"][1] == {"name": "sick", "task": "binary", "classes": ["no", "yes"]}


def test_targets_are_inferred_without_schema(tmp_path):
    before = several()
    pq.write_table(before.table.replace_schema_metadata(None), tmp_path / "predictions.parquet")
    after = read_predictions(tmp_path / "predictions.parquet")
    assert after.targets == before.targets


def test_one_target_keeps_its_name(tmp_path):
    table = pa.table({"id": ["a"], "split": ["test"], "target": [61.0], "score": [60.0]})
    pq.write_table(predictions_of(table, [target_columns("age", task="regression")]).table, tmp_path / "p.parquet")
    assert read_predictions(tmp_path / "p.parquet").targets == (target_columns("age", task="regression"),)


def test_parts_come_in_the_order_of_the_flow():
    predictions = several()
    assert predictions.parts == ["val", "test"]
    assert predictions.part("test").table["id"].to_pylist() == ["a", "a", "c"]
    with pytest.raises(TableError, match=r"'tset'; did you mean 'test'"):
        predictions.part("tset")


def test_arrays_leave_out_rows_without_a_label():
    predictions = several()
    targets, scores = predictions.arrays("age")
    assert targets.tolist() == [61, 61] and scores.tolist() == [60, 62]
    targets, scores = predictions.arrays("sick")
    assert targets.tolist() == [1, 1, 0] and targets.dtype == np.int64
    targets, scores = predictions.part("test").arrays("view")
    assert targets.tolist() == [0] and scores.tolist() == [[0.1, 0.2, 0.7]]
    targets, scores = predictions.part("val").arrays("age")
    assert targets.shape == scores.shape == (0,)
    with pytest.raises(ColumnError, match=r"'sic'; did you mean 'sick'"):
        predictions.arrays("sic")


def test_a_table_without_labels_has_none():
    table = pa.table({"id": ["a"], "split": ["predict"], **{f"score_{each}": [0.3] for each in "xyz"}})
    predictions = predictions_of(table, [target_columns("kind", task="multiclass", classes="xyz")])
    targets, scores = predictions.arrays("kind")
    assert targets.shape == (0,) and scores.shape == (0, 3)


@pytest.mark.parametrize(
    ("text", "task", "classes", "columns"),
    [
        ("target,score\n61.5,60\n40,41\n", "regression", (), ("score",)),
        ("target,score\n0,0.2\n1,0.7\n", "binary", ("0", "1"), ("score",)),
        ("target,score\n0,0.2\n2,0.7\n", "regression", (), ("score",)),
        ("target;score\nno;0,2\nyes;0,7\n", "binary", ("no", "yes"), ("score",)),
        ("target,score\nTrue,0.2\nFalse,0.7\n", "binary", ("false", "true"), ("score",)),
        ("target,score_no,score_yes\nno,0.8,0.2\nyes,0.3,0.7\n", "binary", ("no", "yes"), ("score_yes",)),
        ("target,score_x,score_y,score_z\nx,1,0,0\n", "multiclass", ("x", "y", "z"), ("score_x", "score_y", "score_z")),
        ("target,score_2,score_0,score_1\n1,1,0,0\n", "multiclass", ("2", "0", "1"), ("score_2", "score_0", "score_1")),
    ],
)
def test_any_programs_csv(tmp_path, text, task, classes, columns):
    predictions = read_predictions(written(tmp_path / "p.csv", text))
    (target,) = predictions.targets
    assert (target.name, target.task, target.classes, target.scores) == ("target", task, classes, columns)
    assert predictions.parts == ["external"]
    assert predictions.table["id"].to_pylist()[0] == "0"
    predictions.arrays("target")


def test_parquet_of_pandas_and_polars(tmp_path):
    columns = {"target": ["no", "yes", None], "score": [0.1, 0.6, 0.3], "split": ["val", "test", "test"]}
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    frame = pd.DataFrame(columns).astype({"target": "category", "score": "float32"})
    frame.to_parquet(tmp_path / "pandas.parquet")
    pl.DataFrame(columns).write_parquet(tmp_path / "polars.parquet")
    for name in ("pandas", "polars"):
        predictions = read_predictions(tmp_path / f"{name}.parquet")
        assert predictions.parts == ["val", "test"]
        targets, scores = predictions.arrays("target")
        assert targets.tolist() == [0, 1] and scores == pytest.approx([0.1, 0.6])


def test_task_and_classes_override_inference(tmp_path):
    path = written(tmp_path / "p.csv", "target,score\n0,0.2\n1,0.7\n")
    assert read_predictions(path, task="regression").targets[0].task == "regression"
    turned = read_predictions(path, classes=["1", "0"])
    assert turned.arrays("target")[0].tolist() == [1, 0]
    path = written(tmp_path / "q.csv", "target_a,target_b,score_a,score_b\nno,1,0.2,0.1\nno,0,0.3,0.4\n")
    result = read_predictions(path, task={"b": "regression"}, classes={"a": ["no", "yes"]})
    assert [(each.task, each.classes) for each in result.targets] == [("binary", ("no", "yes")), ("regression", ())]


def test_a_target_whose_name_begins_like_anothers(tmp_path):
    header = "target_a,target_a_b,score_a_x,score_a_y,score_a_b,score_a_z"
    result = read_predictions(written(tmp_path / "p.csv", f"{header}\nx,3.5,0.2,0.1,4,0.7\n"))
    assert result.target("a").scores == ("score_a_x", "score_a_y", "score_a_z")
    assert result.target("a_b").scores == ("score_a_b",)


def test_zeros_and_ones_with_scores_that_are_no_probabilities_are_refused(tmp_path):
    path = written(tmp_path / "p.csv", "target,score\n0,0.2\n1,1.7\n")
    with pytest.raises(LabelError, match=r"not a probability.*task='regression'"):
        read_predictions(path).arrays("target")
    assert read_predictions(path, task="regression").arrays("target")[1].tolist() == [0.2, 1.7]


def test_whole_numbers_with_gaps_are_classes_by_their_own_name():
    table = pa.table(
        {"id": ["a", "b"], "split": ["test"] * 2, "target": [1.0, None], "score_0": [0.1, 0.2], "score_1": [0.4, 0.1]}
        | {"score_2": [0.5, 0.7]}
    )
    predictions = predictions_of(table, [target_columns("grade", task="multiclass", classes=["0", "1", "2"])])
    assert predictions.arrays("grade")[0].tolist() == [1]


@pytest.mark.parametrize(
    ("text", "kwargs", "error", "message"),
    [
        (
            "targt,score\n1,2\n",
            {},
            ColumnError,
            "no column 'target'; a table .* 'score_<class>' .*; did you mean 'targt'",
        ),
        ("target_a,score_b,score_c\nb,0,1\n", {}, ColumnError, "'target_a'; rename it to 'target', .* 'score_b'"),
        ("target,scor\n1.5,2\n", {}, ColumnError, "no column 'score' or .* for 'target'; did you mean 'scor'"),
        (
            "target,score_x,score_y\nz,0.1,0.2\n",
            {},
            ColumnError,
            "no column 'score_z' for 'target'; did you mean 'score_",
        ),
        ("target,score\nyes,0.2\n", {}, LabelError, r"has 1 classes \(yes\).* name both classes with classes="),
        ("target,score\na,0.2\nb,0.2\nc,0.2\n", {}, LabelError, r"has 3 classes \(a, b, c\).*score_<class> for each"),
        ("target,score\nno,0.2\nyes,0.2\n", {"task": "regression"}, LabelError, "a regression needs numbers"),
        ("target,score\n1,0.2\n", {"task": "regresion"}, SettingError, "did you mean 'regression'"),
        (
            "target,score\n1,0.2\n",
            {"task": {"age": "regression"}},
            SettingError,
            "a target 'age'; did you mean 'target'",
        ),
        ("target,score\n", {}, TableError, "has no rows"),
        ("target,score,split\n1,2,test\n1,2,\n", {}, TableError, "1 of 2 rows has no 'split'"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, kwargs, error, message):
    with pytest.raises(error, match=message):
        read_predictions(written(tmp_path / "p.csv", text), **kwargs)


@pytest.mark.parametrize(
    ("target", "score", "message"),
    [
        (["no", "yes"], [0.1, NAN], r"1 of 2 rows has no finite score in 'score' \(b\)"),
        (["no", "yes"], [0.1, None], r"1 of 2 rows has no finite score"),
        (["no", "yes"], [0.1, 1.2], r"not a probability \(b\); classes need scores from 0 to 1"),
        (["no", "yes"], ["low", "high"], "'score' must contain numbers; found string"),
        (["no", "yess"], [0.1, 0.2], r"1 of 2 rows has an unknown class in 'target' \(b: 'yess'\); did you mean 'yes'"),
    ],
)
def test_scores_and_labels_that_cannot_be_measured(target, score, message):
    table = pa.table({"id": ["a", "b"], "split": ["test"] * 2, "target": target, "score": score})
    predictions = predictions_of(table, [target_columns("sick", task="binary", classes=["no", "yes"])])
    with pytest.raises(LabelError, match=message):
        predictions.arrays("sick")


@pytest.mark.parametrize("classes", [("a", "b"), ("a", "b", "c")])
def test_scores_of_all_classes_sum_to_one(tmp_path, classes):
    def arrays_of(*rows):
        lines = [",".join(["id", "target", *(f"score_{each}" for each in classes)])]
        lines += [",".join([f"v{k}", "a", *map(str, row[: len(classes)])]) for k, row in enumerate(rows)]
        return read_predictions(written(tmp_path / "p.csv", "\n".join(lines) + "\n")).arrays("target")

    rounded = (0.33, 0.66) if len(classes) == 2 else (0.33, 0.33, 0.33)
    arrays_of(rounded)
    with pytest.raises(
        LabelError, match=r"1 of 2 rows has .* not sum to 1, the first to 1\.[34] \(v1\); divide .*softmax"
    ):
        arrays_of(rounded, (0.5, 0.8, 0.1))


def test_a_score_without_a_label_may_be_missing():
    table = pa.table({"id": ["a", "b"], "split": ["test"] * 2, "target": [1.0, None], "score": [0.1, NAN]})
    assert predictions_of(table, [target_columns("age", task="regression")]).arrays("age")[1].tolist() == [0.1]


def test_an_infinite_label():
    table = pa.table({"id": ["a", "b"], "split": ["test"] * 2, "target": [1.0, float("inf")], "score": [0.1, 0.2]})
    with pytest.raises(LabelError, match=r"an infinite label in 'target' \(b\)"):
        predictions_of(table, [target_columns("age", task="regression")]).arrays("age")


def test_invalid_files(tmp_path):
    with pytest.raises(TableError, match="cannot be read: No such file"):
        read_predictions(tmp_path / "none.parquet")
    with pytest.raises(TableError, match="cannot read the targets in the schema"):
        read_predictions(written(tmp_path / "p.parquet", "PAR1 and then nothing"))
    table = several().table.replace_schema_metadata({b"cinefeed": b"{}"})
    pq.write_table(table, tmp_path / "q.parquet")
    with pytest.raises(TableError, match="cannot read the targets in the schema"):
        read_predictions(tmp_path / "q.parquet")
    with pytest.raises(ColumnError, match="need a column 'score_age'"):
        predictions_of(table.drop_columns("score_age"), several().targets)
