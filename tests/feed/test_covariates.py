"""What a batch holds beside clips and labels: covariates, weights, the clips as targets."""

import datetime

import numpy as np
import pyarrow as pa
import pytest

import cinefeed as cf
from cinefeed.adapters.keras import FeedDataset
from cinefeed.adapters.torch import FeedLoader
from cinefeed.core.errors import ColumnError, LabelError, SettingError
from cinefeed.feed.covariates import Covariate, fit_covariates, read_covariates

HEIGHTS = [150.0, 160, None, 180, 190, 200, 210, 165, 175, 185, 195]
COLUMNS = ["height_cm", "site"]
SITES = ["b", "a", "a", None, "b", "c", "a", "a", "b", "c", "a"]


@pytest.fixture
def table(manifest):
    columns = {"height_cm": HEIGHTS, "site": SITES, "says": np.arange(11) / 4.0}
    whole = manifest.table
    for name, values in columns.items():
        whole = whole.append_column(name, pa.array(values))
    return cf.Manifest.from_table(whole, root=manifest.root)


def make(manifest, **changes):
    settings = {
        "target": "age",
        "clip": cf.Clip(frames=4),
        "frame": cf.Frame(height=16, width=16, channels=1),
        "batch_size": 4,
        "workers": 0,
        "inputs": cf.Inputs(covariates=COLUMNS),
    }
    return cf.Feed(manifest, **{**settings, **changes})


def test_covariates_belong_to_their_rows_and_have_the_scale_of_the_training_part(table):
    feed = make(table)
    heights = np.array([height for height in HEIGHTS if height is not None])
    for batch in feed:
        assert {name: values.shape[1] for name, values in batch.covariates.items()} == {"height_cm": 1, "site": 3}
        for place, name in enumerate(batch.ids):
            row = int(name[1:])
            expected = 0.0 if HEIGHTS[row] is None else (HEIGHTS[row] - heights.mean()) / heights.std()
            assert batch.covariates["height_cm"][place, 0] == pytest.approx(expected)
            assert batch.covariates["site"][place].tolist() == [float(SITES[row] == site) for site in "abc"]


def test_an_evaluation_keeps_the_scale_and_the_categories(table):
    feed = make(table.where("sick", ["no"]))
    part = table.where("sick", ["yes"])
    values = [batch.covariates for batch in feed.evaluation(part)]
    mean, scale = feed.spec.covariates[0].mean, feed.spec.covariates[0].scale
    assert values[0]["height_cm"][:, 0] == pytest.approx([(height - mean) / scale for height in HEIGHTS[8:]])
    assert values[0]["site"].tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_a_category_that_training_lacks_is_all_zeros():
    result = read_covariates(pa.table({"site": ["z", "a"]}), [Covariate(name="site", categories=("a", "b"))])
    assert result["site"].tolist() == [[0, 0], [1, 0]]


def test_padding_has_no_covariates(table):
    last = list(make(table, shard=cf.Shard(rank=1, world_size=2)))[-1]
    assert not last.weights[-1] and not last.covariates["site"][-1].any()


def test_weights_of_a_column(table):
    for batch in make(table, inputs=cf.Inputs(covariates=COLUMNS, weight="says")):
        assert batch.weights.tolist() == [int(name[1:]) / 4 for name in batch.ids]


def test_a_sampler_that_weighs_rows_is_heard_in_training_alone(table):
    sampler = cf.UniformLabels(by="weights", bins=(0, 25, 200))
    feed = make(table, sampler=sampler, inputs=cf.Inputs(weight="says"))
    expected = sampler.sample_weights(feed.labels) * (np.arange(11, dtype=np.float32) / 4)
    assert len(set(sampler.sample_weights(feed.labels).tolist())) == 2
    for batch in feed:
        assert batch.weights.tolist() == [expected[int(name[1:])] for name in batch.ids]
    weights = [weight for batch in feed.evaluation(table) for weight in batch.weights.tolist()]
    assert weights == (np.arange(11) / 4).tolist()
    assert not any(batch.weights.any() for batch in make(table, target=None, sampler=cf.Natural()))


def test_a_sampler_gets_the_groups_that_it_names(table):
    feed = make(table.drop_missing("site"), sampler=cf.UniformLabels(bins=2, group="site"))
    assert len(list(feed)) == 3
    with pytest.raises(ColumnError, match="did you mean 'site'"):
        make(table, sampler=cf.UniformLabels(group="sites"))


def test_the_clips_as_targets(table):
    feed = make(table, target="clip", inputs=cf.Inputs(covariates=()))
    batch = feed[0]
    assert feed.spec.task == "clip" and np.shares_memory(batch.targets, batch.clips)
    assert batch.weights.tolist() == [1] * 4 and "the clips as targets" in feed.summary()
    inputs, targets, _ = next(iter(FeedLoader(feed)))
    assert targets.data_ptr() == inputs["clips"].data_ptr()


def test_several_targets_each_with_its_mask(table):
    feed = make(
        table,
        target=["age", "site", "height_cm"],
        inputs=cf.Inputs(covariates=(), weight="says"),
        task={"site": "multiclass"},
    )
    heads = {each.name: (each.task, each.classes) for each in feed.spec.targets}
    assert heads == {
        "age": ("regression", ()),
        "site": ("multiclass", ("a", "b", "c")),
        "height_cm": ("regression", ()),
    }
    assert (feed.spec.target, feed.spec.task) == ("age", "regression") and "age and site, height_cm" in feed.summary()
    heights = [height for height in HEIGHTS if height is not None]
    assert feed.spec.targets[2].mean == pytest.approx(np.mean(heights))
    for batch in feed:
        for place, name in enumerate(batch.ids):
            row = int(name[1:])
            assert batch.targets["age"][place] == 20 + row * row and batch.weights["age"][place] == row / 4
            assert batch.weights["site"][place] == (0 if SITES[row] is None else row / 4)
            assert SITES[row] is None or "abc"[batch.targets["site"][place]] == SITES[row]
            assert HEIGHTS[row] is None or batch.targets["height_cm"][place] == HEIGHTS[row]
    evaluation = feed.evaluation(table.where("sick", ["yes"]))
    assert evaluation.spec.targets == feed.spec.targets
    assert next(iter(evaluation)).targets["site"].tolist() == [1, 2, 0]
    inputs, targets, weights = next(iter(FeedLoader(feed)))
    assert set(targets) == set(weights) == {"age", "site", "height_cm"}
    assert inputs["clips"].shape[0] == len(targets["site"]) == 4
    _, targets, weights = FeedDataset(feed)[0]
    assert set(targets) == set(weights) == {"age", "site", "height_cm"}
    assert set(next(iter(feed.evaluation(table, labelled=False))).targets.shape) == {4}


def test_adapters_carry_them(table):
    feed = make(table, inputs=cf.Inputs(covariates=COLUMNS, weight="says"))
    inputs, _, weights = next(iter(FeedLoader(make(table, inputs=cf.Inputs(covariates=COLUMNS, weight="says")))))
    assert inputs["site"].numpy().tolist() == feed[0].covariates["site"].tolist()
    assert weights.tolist() == feed[0].weights.tolist()
    inputs, _, weights = FeedDataset(feed)[0]
    assert list(inputs) == ["clips", "height_cm", "site"]
    assert np.asarray(inputs["height_cm"]).tolist() == feed[0].covariates["height_cm"].tolist()


def test_a_state_of_other_columns_is_refused(table):
    for name, inputs in (
        ("covariates", cf.Inputs(covariates=["site"])),
        ("weight", cf.Inputs(covariates=COLUMNS, weight="says")),
    ):
        with pytest.raises(cf.CinefeedError, match=rf"inputs\.{name}"):
            make(table).restore(make(table, inputs=inputs).state())


def test_what_cannot_be(table):
    with pytest.raises(ColumnError, match="did you mean 'site'"):
        make(table, inputs=cf.Inputs(covariates=["sites"]))
    with pytest.raises(ColumnError, match="did you mean 'says'"):
        make(table, inputs=cf.Inputs(weight="say"))
    with pytest.raises(ColumnError, match="did you mean 'site'"):
        make(table, target=["age", "sit"])
    with pytest.raises(SettingError, match="did you mean 'site'"):
        make(table, target=["age", "site"], task={"sites": "multiclass"})
    with pytest.raises(LabelError, match="numbers are needed"):
        make(table, inputs=cf.Inputs(weight="site"))
    with pytest.raises(
        LabelError, match=r"1 of 11 weights in 'height_cm' is missing, negative or infinite \(first: row 2"
    ):
        make(table, inputs=cf.Inputs(weight="height_cm"))
    for values in ([datetime.date(2020, 1, 31)], [["a", "b"]]):
        with pytest.raises(LabelError, match=r"'x' holds .*one number or category a row"):
            fit_covariates(pa.table({"x": values}), ["x"])
    with pytest.raises(LabelError, match="no value in any row"):
        fit_covariates(pa.table({"x": pa.array([None], pa.float64())}), ["x"])
    whole = cf.Manifest.from_table(table.table.append_column("valid", pa.array([1] * 11)), root=table.root)
    with pytest.raises(SettingError, match="cannot be called 'valid'"):
        make(whole, inputs=cf.Inputs(covariates=["valid"]))
