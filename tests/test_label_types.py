"""One rule for what a label column is, asked by everyone, and kept by a manifest."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cinefeed import BalancedClasses, Clip, Feed, Frame, Manifest, UniformLabels
from cinefeed.cli.options import Flow
from cinefeed.config.starter import starter
from cinefeed.core.errors import LabelError
from cinefeed.data.label_types import class_names, label_type
from cinefeed.data.quality import check_manifest
from cinefeed.metrics.predictions import read_predictions

RULE = [
    (["a", "b"], "classes", None),
    ([True, False, None], "classes", None),
    ([0, 1, 1], "classes", None),
    ([0.0, 1.0, None], "classes", None),
    ([1, 1, 1], "classes", None),
    ([0.0, 1.0, float("inf")], "numbers", None),
    ([0.0, 0.5, 1.0], "numbers", None),
    ([-1, 1, -1, 1], "numbers", None),
    ([0, 1, 2, 0, 1, 2], "numbers", (0, 2)),
    ([1.0, 2.0, 2.0, 1.0], "numbers", (1, 2)),
    ([1, 2, 2], "numbers", None),  # one of them once
    ([1, 3, 1, 3], "numbers", None),  # no 2
    ([2, 3, 2, 3], "numbers", None),
    ([*range(21)] * 2, "numbers", (0, 20)),
    ([*range(400)] * 2, "numbers", (0, 399)),  # such as those of Kinetics
    ([*range(1001)] * 2, "numbers", (0, 1000)),
    ([*range(1002)] * 2, "numbers", None),
    ([2010, 2011, 2010, 2011], "numbers", None),
    ([2**60, 2**60 + 1], "numbers", None),  # a float64 holds neither exactly
    ([None, None], "classes", None),
    ([float("nan")], "numbers", None),
]


@pytest.mark.parametrize(("values", "kind", "grades"), RULE)
def test_the_rule(values, kind, grades):
    result = label_type(pa.array(values, from_pandas=False))
    assert (result.kind, result.grades) == (kind, grades)
    assert bool(result.notice("stage")) == (grades is not None)


def test_the_notice_says_how_to_make_them_classes():
    notice = label_type([0, 1, 2] * 2).notice("stage")
    assert "'stage' contains the integers 0 to 2" in notice and "--task multiclass" in notice and "\n" not in notice


AGES = [str(age) for age in range(20, 31)]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([*AGES, "72y", "-1.5e1", None], "all but 1 of 13 values are numbers: '72y'"),
        ([*AGES, *["unknown", "?"] * 9], "all but 18 of 29 values are numbers: 'unknown', '?'"),
        (AGES, ""),
        (["0", "1", "2", "3", "trace"] * 4, ""),  # grades
        ([*AGES, *"abcd"], ""),
    ],
)
def test_text_of_numbers_but_for_a_few_is_noticed_by_init_check_and_feed(tmp_path, caplog, values, words):
    kind = label_type(values)
    assert (kind.is_classes, kind.others_in_words, bool(kind.notice("age"))) == (True, words, bool(words))
    if not words:
        return
    ages = [value or AGES[0] for value in values]
    paths = manifest_of(tmp_path, age=ages).column("path").to_pylist()
    manifest = Manifest.scan(tmp_path, labels={"path": paths, "age": ages}, progress=False)
    findings = {each.code: each.count for each in check_manifest(manifest, target="age", progress=False).findings}
    assert findings["numbers_as_text"] == sum(ages.count(other) for other in kind.others)
    assert "classes_rare" not in findings
    assert any("values are numbers" in note for note in starter(manifest, path="m", target="age", group=False).notes)
    caplog.clear()
    settings = {"clip": Clip(frames=2), "frame": Frame(height=16, width=16, channels=1)}
    Feed(manifest, target="age", **settings)
    assert [each.message for each in caplog.records] == [manifest.label_type("age").notice("age")]
    Feed(manifest, target="age", task="multiclass", **settings)
    assert len(caplog.records) == 1
    classes = check_manifest(manifest.with_task("age", "multiclass"), target="age", progress=False)
    assert "numbers_as_text" not in {each.code for each in classes.findings}


def test_a_category_of_numbers_is_classes():
    grade = pd.Series([1, 2, 3], dtype="category")
    manifest = Manifest.from_table(pd.DataFrame({"path": ["a", "b", "c"], "grade": grade}))
    assert manifest.label_type("grade").is_classes
    assert manifest.column("grade").to_pylist() == ["1", "2", "3"]


@pytest.mark.parametrize("values", [pd.to_datetime(["2020-01-31"] * 3), pd.to_timedelta([1, 2, 3], unit="D")])
def test_dates_and_times_are_no_labels(tmp_path, values):
    frame = pd.DataFrame({"path": ["a", "b", "c"], "when": values, "sick": [0, 1, 0]})
    manifest = Manifest.from_table(frame)
    with pytest.raises(LabelError, match=r"'when' holds .*neither a class nor a number.*days since"):
        manifest.label_type("when")
    with pytest.raises(LabelError, match="neither a class nor a number"):
        Feed(manifest, target="when", clip=Clip(frames=2), frame=Frame(height=4, width=4, channels=1))
    manifest.write(tmp_path / "m.parquet")  # beside other labels they are no hindrance
    assert Manifest.read(tmp_path / "m.parquet").label_type("sick").is_classes


def test_class_names_of_whole_floats_have_no_point():
    assert class_names(pa.array([1.0, None, 0.0])).to_pylist() == ["1", None, "0"]
    assert class_names(pa.array([1.0, 0.5])).to_pylist() == ["1", "0.5"]
    assert class_names(pa.array([float("nan"), 3e15])).to_pylist() == [None, "3000000000000000"]


def manifest_of(folder, **columns):
    """Return a manifest of one array a row, with these labels."""
    count = len(next(iter(columns.values())))
    for number in range(count):
        np.save(folder / f"{number}.npy", np.zeros((4, 16, 16), np.uint8))
    return Manifest.from_table({"path": [f"{number}.npy" for number in range(count)], **columns}, root=folder)


def test_a_manifest_keeps_what_the_whole_column_was(tmp_path):
    values = {"sick": [0, 1] * 4, "stage": [0, 1, 2, 2, 1, 0, 0, 1], "ef": [0.0, 1.0, 0.25, 0.75] * 2}
    manifest = manifest_of(tmp_path, **values, view=["a", "b"] * 4, study=["1", "1", "2", "2", "3", "3", "4", "4"])
    manifest.where("sick", [1]).write(tmp_path / "ones.parquet")
    low = manifest.where("stage", [0, 1])
    parts = low.split(val=0.2, test=0.2, group=None)
    assert Manifest.read(tmp_path / "ones.parquet").label_type("sick").kind == "classes"
    extremes = manifest.where("ef", [0.0, 1.0])
    for each in (
        extremes,
        extremes.as_private(),
        extremes.take([0]),
        extremes.split(val=0.2, test=0.2, group=None).val,
    ):
        assert each.label_type("ef").kind == "numbers"
    for each in (low, *parts, parts.all, low.with_split({"train": {"path": ["0.npy", "1.npy"]}}, unmatched="ignore")):
        assert each.label_type("stage").grades == (0, 2)
    assert low.label_type("view").is_classes
    constant = Manifest.from_table(
        {"path": ["a", "b", "c", "d"], "view": ["x", "y"] * 2, "study": ["1", "1", "2", "2"], "ef": [0, 0, 1, 1]}
    )
    by_study = constant.with_task("ef", "regression").pivot(by="view", within="study")
    assert by_study.label_type("ef").kind == "numbers"


def test_everyone_takes_zeros_and_ones_for_two_classes(tmp_path):
    manifest = manifest_of(tmp_path, sick=[0.0, 1.0] * 6)
    manifest.write(tmp_path / "m.parquet")
    feed = Feed(manifest, target="sick", clip=Clip(frames=2), frame=Frame(height=16, width=16, channels=1))
    assert (feed.spec.task, feed.spec.classes) == ("binary", ("0", "1"))
    assert feed.batch(0).targets.dtype == np.int64
    parts = manifest.split(val=0.25, test=0.25, group=None, stratify="sick")
    assert [*parts.balance.classes] == ["0", "1"]
    sampler = Flow(manifest=tmp_path / "m.parquet", target=["sick"], balance=True).table()["sampler"]
    assert sampler == {"name": "BalancedClasses"}
    (tmp_path / "p.csv").write_text("id,target,score\na,0,0.2\nb,1,0.7\n")
    assert read_predictions(tmp_path / "p.csv").targets[0].task == "binary"


def test_a_task_wins_over_the_rule_in_a_split_too(tmp_path):
    stage = manifest_of(tmp_path, stage=[0, 1, 2] * 6)
    assert stage.split(val=0.2, test=0.2, group=None, stratify="stage").balance.classes == {}
    classes = stage.with_task("stage", "multiclass").split(val=0.2, test=0.2, group=None, stratify="stage").balance
    assert [*classes.classes] == ["0", "1", "2"]


def test_a_sampler_of_the_other_kind_is_refused_with_the_remedy(tmp_path):
    manifest = manifest_of(tmp_path, sick=[0, 1] * 4, age=[20.5, 30, 40, 50] * 2)
    settings = {"clip": Clip(frames=2), "frame": Frame(height=16, width=16, channels=1)}
    with pytest.raises(
        LabelError, match=r"balances classes, but 'age' contains numbers .* UniformLabels, .*--task multiclass"
    ):
        Feed(manifest, target="age", sampler=BalancedClasses(), **settings)
    with pytest.raises(LabelError, match=r"balances numbers, but 'sick' has 2 classes \(0, 1\).* BalancedClasses"):
        Feed(manifest, target="sick", sampler=UniformLabels(), **settings)
    Feed(manifest, target="sick", task="regression", sampler=UniformLabels(), **settings)
    Feed(manifest, target="age", task="multiclass", sampler=BalancedClasses(), **settings)


def test_numbers_like_classes_are_noticed_once(tmp_path, caplog):
    manifest = manifest_of(tmp_path, stage=[0, 1, 2] * 4)
    settings = {"clip": Clip(frames=2), "frame": Frame(height=16, width=16, channels=1)}
    feed = Feed(manifest, target="stage", **settings)
    feed.evaluation(manifest)
    assert feed.spec.task == "regression"
    assert [each.message for each in caplog.records] == [manifest.label_type("stage").notice("stage")]
    Feed(manifest, target="stage", task="regression", **settings)
    assert len(caplog.records) == 1


def test_lists_are_refused_by_everyone_who_needs_a_label(tmp_path):
    manifest = manifest_of(tmp_path, finding=[["a", "b"], ["b"], ["a"], ["b"]])
    settings = {"clip": Clip(frames=2), "frame": Frame(height=16, width=16, channels=1)}
    with pytest.raises(LabelError, match="column 'finding' holds list"):
        Feed(manifest, target="finding", **settings)
    with pytest.raises(LabelError, match="column 'finding' holds list"):
        Feed(manifest, target="finding", task="multiclass", **settings)
    with pytest.raises(LabelError, match="column 'finding' holds list"):
        manifest.split(val=0.25, test=0.25, group=None, stratify="finding")


def test_long_whole_numbers_are_fed_split_and_checked(tmp_path):
    labels = {"path": [f"{n}.npy" for n in range(8)], "y": [2**60 + n * 2**57 for n in range(8)]}
    for name in labels["path"]:
        np.save(tmp_path / name, np.zeros((4, 8, 8), np.uint8))
    manifest = Manifest.scan(tmp_path, labels=labels, progress=False)
    feed = Feed(manifest, target="y", clip=Clip(frames=2), frame=Frame(height=8, width=8), batch_size=8, workers=0)
    assert sorted(feed.batch(0).targets.tolist()) == labels["y"]
    assert check_manifest(manifest, target="y", progress=False).label
    manifest.split(val=0.25, test=0.25, group=None, stratify="y")
