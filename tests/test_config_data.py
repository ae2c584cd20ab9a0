"""[data] with several targets, covariates and weights; [evaluate]."""

import pytest

from cinefeed.config import EvaluateSettings, overlay, parse, read_settings, to_toml
from cinefeed.core.errors import SettingError


def table(**sections):
    whole = {
        "data": {"manifest": "m.parquet", "target": ["age", "sex"], "split": {"group": "patient"}},
        "frame": {"height": 64, "width": 48},
        "train": {"out": "runs/a"},
    }
    return overlay(whole, sections)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"data": {"task": {"sex": "binary"}, "classes": {"sex": ["f", "m"]}}},
        {"feed": {"inputs": {"covariates": ["bmi"], "weight": "w"}, "workers": {"count": 3, "memory": "2GB"}}},
        {"data": {"target": "sex", "task": "binary", "classes": ["f", "m"]}},
        {"data": {"target": "sex", "classes": {"sex": ["f", "m"]}}},
        {"data": {"target": "clip"}},
        {"evaluate": {"unit": "study", "clips": 5, "subgroups": ["site", "sex"], "resamples": 200, "level": 0.9}},
    ],
)
def test_what_is_written_is_read_back(sections, tmp_path):
    settings = parse(table(**sections))
    (tmp_path / "s.toml").write_text(to_toml(settings))
    assert read_settings(tmp_path / "s.toml") == settings


def test_targets_are_a_list_however_they_were_written():
    assert parse(table()).data.targets == ("age", "sex")
    assert parse(table(data={"target": "age"})).data.targets == ("age",)
    one = parse(table(data={"target": ["age"]})).data
    assert (one.target, one.targets) == ("age", ("age",))
    assert parse(table(data={"target": ""})).data.targets == ()
    assert parse(table()).evaluate == EvaluateSettings()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"target": 3}}, r"\[data\] target = 3 must be a text or a list"),
        ({"data": {"target": []}}, r"\[data\] target = \[\] must be a label column"),
        ({"data": {"target": ["age", "age"]}}, r"\[data\] target = .* must be different columns"),
        ({"data": {"target": ["age", "clip"]}}, "leave 'clip' out"),
        ({"feed": {"inputs": {"covariates": ["age"]}}}, r"\[feed.inputs\] covariates: 'age' is the target"),
        (
            {"feed": {"inputs": {"covariate": ["bmi"]}}},
            r"\[feed.inputs\] covariate is not a setting; did you mean 'covariates'",
        ),
        ({"data": {"task": {"sx": "binary"}}}, r"\[data\] task: 'sx' is no target; did you mean 'sex'"),
        ({"data": {"task": {"sex": "binar"}}}, r"\[data\] task.sex = 'binar' is not a choice; did you mean 'binary'"),
        ({"data": {"task": "binar"}}, r"\[data\] task = 'binar' is not a choice; did you mean 'binary'"),
        ({"data": {"task": "binary"}}, r"for one target, here are 2; give a table, such as task = {age = 'binary'}"),
        ({"data": {"classes": ["f", "m"]}}, "for one target, here are 2"),
        ({"data": {"classes": {"sex": 3}}}, r"\[data\] classes.sex = 3 must be a list"),
        ({"evaluate": {"clip": 2}}, r"\[evaluate\] clip is not a setting; did you mean 'clips'"),
        ({"evaluat": {}}, "did you mean 'evaluate'"),
        ({"evaluate": {"clips": 0}}, r"\[evaluate\] clips = 0 must be at least 1"),
        ({"evaluate": {"resamples": 0}}, r"\[evaluate\] resamples = 0"),
        ({"evaluate": {"level": 95}}, r"\[evaluate\] level = 95.0 must be between 0 and 1"),
    ],
)
def test_a_wrong_setting_is_named(sections, message):
    with pytest.raises(SettingError, match=message):
        parse(table(**sections))
