"""Plug-ins of other packages: found by name and suffix, imported on use, and refused with a reason."""

import sys
from textwrap import dedent

import numpy as np
import pytest

import cinefeed as cf
from cinefeed.config import parse, to_table
from cinefeed.core import plugins as module
from cinefeed.core.errors import PluginError, SettingError, SourceError
from cinefeed.core.plugins import plugin_names, plugin_versions
from cinefeed.feed.settings import FeedSettings, batch_settings
from cinefeed.jobs.versions import versions_of_decoder
from cinefeed.metrics import Metric
from cinefeed.metrics.added import load_metrics
from cinefeed.metrics.basic import _RANGES, metric_range
from cinefeed.packing.settings import PackSettings
from cinefeed.video import kinds, readers
from installed_plugin import install_example, write_metadata

TABLE = {
    "data": {"manifest": "m.parquet", "target": "age", "split": {"group": "patient"}},
    "frame": {"height": 8, "width": 8},
    "train": {"out": "run"},
}


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A folder of the module path; what is registered from it is undone."""
    registered, suffixes, ranges = {**readers._readers}, {**kinds._own_suffixes}, {**_RANGES}
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def forget():
        module._installed.cache_clear()
        kinds._find_plugins.cache_clear()

    forget()
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] in ("some_plugin", "cinefeed_example")]:
        del sys.modules[name]
    readers._readers.clear()
    readers._readers.update(registered)
    kinds._own_suffixes.clear()
    kinds._own_suffixes.update(suffixes)
    _RANGES.clear()
    _RANGES.update(ranges)
    monkeypatch.undo()
    forget()
    kinds._find_plugins()


def add(folder, kind, code="", **entries):
    """Install a package with the plug-ins `entries` of one kind, in a module some_plugin."""
    (folder / "some_plugin.py").write_text(dedent(code))
    write_metadata(folder, entry_points={f"cinefeed.{kind}": entries})


@pytest.fixture
def example(path, monkeypatch):
    for folder in install_example(path)[1:]:
        monkeypatch.syspath_prepend(folder)
    return path


def test_settings_with_plugins_are_read_back_as_written(example):
    assert plugin_names()["samplers"] == ["SquareRoot"] and plugin_versions() == {"cinefeed-example": "0.1.0"}
    inner = {"name": "OneOf", "transforms": [{"name": "Vignette", "strength": 0.25}]}
    table = TABLE | {"sampler": {"name": "SquareRoot", "strength": 0.5}, "transforms": [{"name": "Vignette"}, inner]}
    settings = parse(table)
    assert repr(settings.sampler).startswith("SquareRoot(strength=0.5")
    assert parse(to_table(settings)) == settings


def test_the_settings_of_a_transform_are_part_of_the_identity_of_a_batch(example):
    def identity(strength):
        transforms = parse(TABLE | {"transforms": [{"name": "Vignette", "strength": strength}]}).transforms
        frame = cf.Frame(height=8, width=8)
        return batch_settings(FeedSettings(target="age", clip=cf.Clip(), frame=frame, transforms=transforms))

    assert identity(0.25) != identity(0.5) and "Vignette(strength=0.25)" in identity(0.25)["transforms"]


def test_names_that_are_nearly_those_of_plugins(example):
    for change, match in (
        ({"transforms": [{"name": "Vignete"}]}, "did you mean 'Vignette'"),
        ({"sampler": {"name": "SquareRot"}}, "did you mean 'SquareRoot'"),
        ({"evaluate": {"metrics": ["cc"]}}, "'cc' is not a metric of an installed plug-in; did you mean 'ccc'"),
        ({"evaluate": {"metrics": ["r2"]}}, "'r2' is always computed"),
        ({"transforms": [{"name": "Vignette", "strenght": 1}]}, "did you mean 'strength'"),
        ({"transforms": [{"name": "Vignette", "strength": 2.0}]}, "must be from 0"),
    ):
        with pytest.raises(SettingError, match=match):
            parse(TABLE | change)
    with pytest.raises(SettingError, match="did you mean 'zlib'"):
        PackSettings(codec="zlip")
    assert PackSettings(codec="zlib").is_lossless


def test_a_file_is_read_by_its_suffix(example, tmp_path):
    from cinefeed_example.reader import write_rawcine

    video = np.arange(96, dtype=np.uint8).reshape(6, 4, 4)
    write_rawcine(tmp_path / "a.RAWCINE", video)
    del sys.modules["cinefeed_example.reader"]
    assert "cinefeed_example.reader" not in sys.modules
    manifest = cf.Manifest.scan(tmp_path, progress=False)
    assert manifest.column("container").to_pylist() == ["reader:rawcine"]
    with manifest.open(0) as source:
        np.testing.assert_array_equal(source.read([5])[0, ..., 0], video[5])
    assert versions_of_decoder()["cinefeed-example"] == "0.1.0"
    with pytest.raises(SettingError, match=r"\.rawcine is already read by 'rawcine'"):
        cf.register_reader(".rawcine", np.load)
    cf.register_reader(".rawcine", np.load, replace=True)
    with pytest.raises(SourceError, match="the reader 'rawcine' cannot open it"):
        cf.open_video(tmp_path / "a.RAWCINE")


def test_a_plugin_is_imported_on_use_only(example):
    cf.open_video  # noqa: B018
    parse(TABLE | {"sampler": {"name": "BalancedClasses"}})
    assert kinds.kind_by_suffix("a.rawcine") == "reader:rawcine"
    assert not any(name.startswith("cinefeed_example") for name in sys.modules)


def test_a_metric_has_an_interval_and_its_range(example):
    import pyarrow as pa

    from cinefeed.metrics import assess, predictions_of, target_columns

    rng = np.random.default_rng(0)
    target = np.arange(40.0)
    table = pa.table(
        {"id": [f"v{row}" for row in range(40)], "split": ["test"] * 40, "target": target}
        | {"score": target + rng.normal(0, 9, 40)}
    )
    predictions = predictions_of(table, [target_columns("age", task="regression")])
    metrics = assess(predictions, resamples=100, metrics=["ccc"])["parts"]["test"]["age"]["metrics"]
    assert 0.5 < metrics["ccc"]["low"] < metrics["ccc"]["value"] < metrics["ccc"]["high"] <= 1
    assert [*metrics][-1] == "ccc" and metric_range("age_ccc") == (-1.0, 1.0)
    assert "ccc" not in assess(predictions, resamples=100)["parts"]["test"]["age"]["metrics"]


def test_a_metric_of_other_tasks_is_left_out():
    with pytest.raises(SettingError, match="some of regression, binary and multiclass"):
        Metric(function=print, tasks=("classes",))


@pytest.mark.parametrize(
    ("kind", "entry", "use"),
    [
        ("transforms", "Faulty", lambda: parse(TABLE | {"transforms": [{"name": "Faulty"}]})),
        ("samplers", "Faulty", lambda: parse(TABLE | {"sampler": {"name": "Faulty"}})),
        ("metrics", "faulty", lambda: load_metrics(["faulty"])),
        ("codecs", "faulty", lambda: PackSettings(codec="faulty")),
        ("readers", ".faulty", lambda: cf.open_video("a.faulty")),
    ],
)
def test_a_plugin_that_cannot_be_used_names_its_package(path, tmp_path, monkeypatch, kind, entry, use):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.faulty").write_bytes(b"x")
    add(path, kind, "import a_module_that_is_missing", **{entry: "some_plugin:thing"})
    reason = f"'{entry}' of some-plugin 1.2 .entry point cinefeed.{kind}: {entry} = some_plugin:thing. "
    with pytest.raises(PluginError, match=reason + "cannot be imported: ModuleNotFoundError: No module named 'a_mod"):
        use()
    (path / "some_plugin.py").write_text("thing = 3")
    sys.modules.pop("some_plugin", None)
    __import__("importlib").invalidate_caches()
    with pytest.raises(PluginError, match=reason + "must be a"):
        use()


@pytest.mark.parametrize(
    ("kind", "entry", "use"),
    [
        ("transforms", "Rotate", lambda: parse(TABLE | {"transforms": [{"name": "Flip"}]})),
        ("transforms", "MixUp", lambda: parse(TABLE | {"transforms": [{"name": "Flip"}]})),
        ("samplers", "Natural", lambda: parse(TABLE)),
        ("metrics", "auroc", lambda: load_metrics([])),
        ("codecs", "jpeg", lambda: PackSettings(codec="raw").is_lossless),
        ("readers", ".npy", lambda: kinds.own_kind("a.mp4")),
    ],
)
def test_the_name_of_a_builtin_is_refused(path, kind, entry, use):
    add(path, kind, **{entry: "some_plugin:thing"})
    with pytest.raises(PluginError, match=f"'{entry}' of some-plugin 1.2 .* must be renamed, because cinefeed has"):
        use()


def test_a_name_of_two_packages_is_refused(path):
    for name, value in (("first-plugin", "first:A"), ("second-plugin", "second:A")):
        write_metadata(path, name=name, entry_points={"cinefeed.samplers": {"A": value}})
    with pytest.raises(PluginError, match=r"(first|second)-plugin 1.2 .* the name of .*(second|first)-plugin"):
        parse(TABLE)


@pytest.mark.parametrize("suffix", ["cine", ".CINE", "."])
def test_the_name_of_a_reader_is_a_suffix(path, suffix):
    add(path, "readers", **{suffix: "some_plugin:thing"})
    with pytest.raises(PluginError, match="must be named by a suffix in lower case"):
        kinds.own_kind("a.cine")


def test_a_class_is_named_like_its_entry_point(path):
    code = """
        from dataclasses import dataclass
        from cinefeed.data.sampling import Balancing
        @dataclass(frozen=True, kw_only=True)
        class Other(Balancing):
            pass
    """
    add(path, "samplers", code, Third="some_plugin:Other")
    with pytest.raises(PluginError, match="must be named like its class, Other"):
        parse(TABLE | {"sampler": {"name": "Third"}})


def test_a_program_without_the_package_of_a_codec_names_it(example, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 8, 8), np.uint8))
    manifest = cf.Manifest.scan(tmp_path, progress=False)
    from cinefeed.packing.pack import pack

    packed = cf.Manifest.read(
        pack(manifest, out=tmp_path / "packed", settings=PackSettings(codec="zlib"), workers=0).path
    )
    with packed.open(0) as source:
        assert source.read([3]).shape == (1, 8, 8, 1)
    (next(example.glob("*.dist-info")) / "entry_points.txt").unlink()
    module._installed.cache_clear()
    with pytest.raises(SourceError, match="packed with the codec 'zlib' of a plug-in that is not installed"):
        packed.open(0)
