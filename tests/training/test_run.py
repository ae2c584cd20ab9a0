import json
from importlib.util import find_spec

import numpy as np
import pytest

from cinefeed.config import overlay, parse, to_table, to_toml
from cinefeed.core.errors import SettingError
from cinefeed.core.files import write_atomically
from cinefeed.core.locks import write_lock
from cinefeed.training.run import (
    READER_PACKAGES,
    check_out,
    check_same,
    clear,
    device,
    plain,
    read_run,
    settings_of_run,
    versions,
    write_json,
)


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "data.json"
    write_json(path, {"a": 1})

    def broken(partial):
        partial.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, broken)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["data.json"]


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"r2": float("nan"), "n": np.int64(3), "x": np.array([1.5, np.inf]), "t": (1,)})
    assert json.loads((tmp_path / "a.json").read_text()) == {"r2": None, "n": 3, "x": [1.5, None], "t": [1]}
    assert plain(np.float32(0.5)) == 0.5


def test_a_new_folder_is_not_created_by_looking(tmp_path):
    folder = check_out(tmp_path / "runs" / "x")
    assert not folder.parent.exists()
    clear(folder)
    assert folder.is_dir()
    check_out(folder)


def test_clearing_takes_only_a_runs_own_files(tmp_path):
    for name in ("settings.toml", "run.json", "notes.md"):
        (tmp_path / name).write_text("x")
    with pytest.raises(SettingError, match="finished run"):
        check_out(tmp_path)
    clear(check_out(tmp_path, overwrite=True))
    assert [each.name for each in tmp_path.iterdir()] == ["notes.md"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["manifest.parquet"], "manifest.parquet"),  # of a scan, into the folder that is then trained into
        (["report.html", "methods.md"], "methods.md, report.html"),
        (["settings.toml"], "settings.toml"),
        (["predictions.parquet", "notes.md"], "notes.md"),
        (["settings.toml", "folds.json", "fold1", "assessment.json", "failures.json"], "fold1, folds.json"),
        (["folds.json", "spec.json"], "folds.json"),
    ],
)
def test_files_that_are_not_a_runs_are_not_cleared(tmp_path, names, message):
    for name in names:
        (tmp_path / name).write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(SettingError, match=rf"holds other files \({message}\); name a new folder"):
            check_out(tmp_path, overwrite=overwrite)


def test_a_run_that_was_killed_while_it_began_is_known(tmp_path):
    for names in ([".partial.12.spec.json"], ["spec.json", ".partial.12.settings.toml"], ["notes.md"]):
        for name in names:
            (tmp_path / name).write_text("x")
        with write_lock(tmp_path, folder=True):
            clear(check_out(tmp_path) if "notes.md" not in names else tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["notes.md"]


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(SettingError, match=r"is not a run folder: settings.toml, spec.json"):
        read_run(tmp_path)


def test_versions_and_device():
    result = versions()
    assert {"cinefeed", "python", "numpy", "keras", "backend", "device", result["backend"]} <= set(result)
    assert result["device"] == device() != ""
    readers = {name for name in READER_PACKAGES if find_spec(name) is not None}
    assert readers == set(result) & set(READER_PACKAGES), "of the readers those that are installed"


FEED = {
    "batch_size": 8,
    "inputs": {"covariates": ["bmi"], "weight": "w", "views": ["a", "b"]},
    "clips_per_video": {"count": 2, "interleave": True},
    "mixing": {"name": "MixUp"},
    "workers": {"count": 3, "backend": "process", "memory": "2GB", "timeout_seconds": 60},
    "on_error": "replace",
    "max_bad": 0.1,
}


def settings_with(**feed):
    table = {
        "data": {"manifest": "m.parquet", "target": "age", "split": {"group": "patient"}},
        "frame": {"height": 8, "width": 8},
        "feed": overlay(FEED, feed),
        "train": {"out": "run"},
    }
    return parse(table)


def test_the_settings_of_a_run_are_read_back(tmp_path):
    (tmp_path / "settings.toml").write_text(to_toml(settings_with()))
    assert settings_of_run(tmp_path) == settings_with()
    feed = to_table(settings_of_run(tmp_path))["feed"]
    assert feed["workers"]["memory"] == "2GB" and feed["clips_per_video"] == FEED["clips_per_video"]


@pytest.mark.parametrize(
    ("feed", "differs"),
    [
        ({"workers": 0}, False),
        ({"workers": {"memory": "1GB", "prefetch": 4}}, False),
        ({"max_bad": 0.5}, False),
        ({"return_parameters": True}, False),
        ({"batch_size": 4}, True),
        ({"drop_last": True}, True),
        ({"on_error": "raise"}, True),
        ({"inputs": {"weight": "v"}}, True),
        ({"clips_per_video": {"interleave": False}}, True),
        ({"mixing": {"name": "CutMix"}}, True),
    ],
)
def test_a_run_goes_on_if_its_batches_are_the_same(tmp_path, feed, differs):
    (tmp_path / "settings.toml").write_text(to_toml(settings_with()))
    if not differs:
        check_same(tmp_path, settings_with(**feed))
        return
    with pytest.raises(SettingError, match=rf"an interrupted run with other settings \(\[feed\] {next(iter(feed))} = "):
        check_same(tmp_path, settings_with(**feed))
