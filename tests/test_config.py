import tomllib

import pytest

from cinefeed.config import overlay, parse, read_settings, to_table, to_toml
from cinefeed.core.errors import SettingError
from cinefeed.data.sampling import BalancedClasses, Natural, UniformLabels
from cinefeed.transforms.geometry import Flip, Rotate, Shift
from cinefeed.transforms.intensity_linear import Normalize
from cinefeed.video.clips import Clip, Frame


def table(**sections):
    """A whole table, with the sections given laid over it."""
    whole = {
        "data": {"manifest": "m.parquet", "target": "label", "split": {"group": "patient"}},
        "frame": {"height": 64, "width": 48, "channels": 1},
        "train": {"out": "runs/a"},
    }
    return overlay(whole, sections)


def test_a_small_file_is_filled_with_defaults():
    settings = parse(table())
    assert settings.clip == Clip()
    assert settings.frame == Frame(height=64, width=48, channels=1)
    assert settings.sampler == Natural()
    assert settings.transforms == ()
    assert settings.model.name == settings.train.epochs == settings.train.learning_rate == "auto"
    assert parse({**table(), "model": {"units": 4}}).model.name == "cnn_rnn"
    assert settings.data.split.group == "patient"


def test_every_section_is_read():
    settings = parse(
        table(
            clip={"frames": 8, "stride": 2, "position": "start"},
            transforms=[{"name": "Rotate", "degrees": 25}, {"name": "Shift", "pixels": 15}, {"name": "Flip"}],
            sampler={"name": "BalancedClasses"},
            feed={"batch_size": 4, "seed": 7, "workers": 2},
            model={"name": "cnn_rnn", "rnn": "lstm", "filters": [8, 16]},
            train={"epochs": 3, "learning_rate": 1, "schedule": "cosine"},
        )
    )
    assert settings.clip == Clip(frames=8, stride=2, position="start")
    assert settings.transforms == (Rotate(degrees=25.0), Shift(pixels=15), Flip())
    assert settings.sampler == BalancedClasses()
    assert settings.feed.workers.count == 2
    assert settings.model.options == {"rnn": "lstm", "filters": [8, 16]}
    assert settings.train.learning_rate == 1.0


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"data": {"where": {"label": ["regular", "pneumonia"], "year": [2020]}, "classes": ["regular", "pneumonia"]}},
        {"data": {"split": {"group": False, "stratify": "label"}}},
        {
            "sampler": {"name": "UniformLabels", "bins": 8},
            "transforms": [{"name": "Normalize"}, {"name": "Brightness", "factor": [0.5, 1.5]}],
        },
        {"clip": {"rate_hz": 12.5}, "model": {"filters": [8, 16], "dropout": 0.1}, "train": {"loss": "huber"}},
    ],
)
def test_what_is_written_is_read_back(sections, tmp_path):
    settings = parse(table(**sections))
    path = tmp_path / "settings.toml"
    path.write_text(to_toml(settings))
    assert read_settings(path) == settings
    assert to_table(read_settings(path)) == to_table(settings)
    assert tomllib.loads(path.read_text())["sampler"]["name"] == type(settings.sampler).__name__


def test_a_changed_setting_is_no_round_trip():
    assert to_table(parse(table())) != to_table(parse(table(feed={"seed": 1})))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"feed": {"batch_sise": 8}}, r"\[feed\] batch_sise is not a setting; did you mean 'batch_size'\?"),
        ({"feeed": {}}, "feeed is not a section; did you mean 'feed'"),
        ({"feed": {"batch_size": "eight"}}, r"\[feed\] batch_size = 'eight' must be a whole number"),
        ({"feed": {"batch_size": True}}, r"\[feed\] batch_size = true must be a whole number"),
        ({"feed": {"batch_size": 0}}, r"\[feed\] batch_size = 0 must be a whole number of at least 1"),
        ({"feed": 8}, r"\[feed\] must be a section"),
        ({"clip": {"position": "middle"}}, r"\[clip\] position = 'middle' is not a choice"),
        ({"clip": {"frames": 0}}, r"\[clip\] frames = 0"),
        ({"frame": {"channels": 2}}, r"\[frame\] channels = 2"),
        ({"frame": {"height": 1.5}}, r"\[frame\] height = 1.5 must be a whole number"),
        ({"transforms": [{"name": "Rotat", "degrees": 3}]}, r"\[transforms\] name = 'Rotat' .*'Rotate'"),
        ({"transforms": [{"name": "Rotate", "degree": 3}]}, r"\[transforms: Rotate\] degree .*'degrees'"),
        ({"transforms": [{"name": "Rotate", "degrees": "x"}]}, r"\[transforms: Rotate\] degrees = 'x' must be"),
        ({"transforms": [{"degrees": 3}]}, r"\[transforms\] needs a name"),
        ({"transforms": {"name": "Rotate"}}, "must be a list of tables"),
        ({"sampler": {"name": "Uniform"}}, r"\[sampler\] name = 'Uniform' .*'UniformLabels'"),
        ({"data": {"split": {"group": "p", "val": 0.6, "test": 0.5}}}, r"\[data.split\] val \+ test = 1.1"),
        ({"data": {"where": ["label"]}}, r"\[data\] where = .* must be a table"),
        ({"train": {"learning_rate": float("nan")}}, r"\[train\] learning_rate = nan must be a positive number"),
        ({"train": {"patience": -1}}, r"\[train\] patience = -1"),
        ({"train": {"loss": "l2"}}, r"\[train\] loss = 'l2' is not a choice"),
    ],
)
def test_a_wrong_setting_is_named(sections, message):
    with pytest.raises(SettingError, match=message):
        parse(table(**sections))


def test_what_has_no_default_is_asked_for():
    with pytest.raises(SettingError, match=r"\[data.split\] group is missing: name the column"):
        parse({**table(), "data": {"manifest": "m", "target": "y", "split": {}}})
    with pytest.raises(SettingError, match=r"\[train\] out is missing"):
        parse({**table(), "train": {}})
    with pytest.raises(SettingError, match=r"\[frame\] height and width are missing; give each a value"):
        parse({**table(), "frame": {}})


def test_a_renamed_section_starts_afresh():
    below = {"sampler": {"name": "UniformLabels", "bins": 4}}
    assert overlay(below, {"sampler": {"name": "Natural"}})["sampler"] == {"name": "Natural"}
    assert overlay(below, {"sampler": {"bins": 9}})["sampler"] == {"name": "UniformLabels", "bins": 9}
    named = overlay(
        {"model": {"units": 64}}, {"model": {"name": "cnn_rnn"}}
    )  # a section without a name keeps its options
    assert named["model"] == {"name": "cnn_rnn", "units": 64}


def test_a_file_that_is_no_toml_is_named(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text("[feed\nbatch_size = 8")
    with pytest.raises(SettingError, match=r"bad.toml is not TOML"):
        read_settings(path)
    with pytest.raises(SettingError, match=r"absent.toml cannot be read"):
        read_settings(tmp_path / "absent.toml")


def test_names_that_cinefeed_exports_are_known():
    settings = parse(table(transforms=[{"name": "Normalize"}], sampler={"name": "UniformLabels"}))
    assert isinstance(settings.transforms[0], Normalize)
    assert isinstance(settings.sampler, UniformLabels)
