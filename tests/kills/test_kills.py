"""Killed at any write, with the disk full at any file: what is there is whole, and the same call comes to the same."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the work runs in forks, under a limit of file sizes")
SCRIPT = Path(__file__).with_name("killed.py")
# Shares of all writes; "all" in the slow tests. The late ones of a training are scores, results and the last removal.
KILLS = {
    "scan": ("0", "0.3", "0.6", "0.9", "1"),
    "encode": ("0.5", "0.97"),
    "pack": ("0.3", "0.93"),
    "train": ("0.02", "0.4", "0.86"),
}
FULL = {
    "scan": ("all",),
    "encode": ("encoded.jsonl", "features.parquet"),
    "pack": ("000000.tar", "manifest.parquet"),
    "train": ("best.weights.h5", "predictions.parquet", "log.jsonl"),
}


def check(job, folder, how, *places):
    done = subprocess.run(
        [sys.executable, SCRIPT, job, folder / "work", how, *places], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert not result["faults"], result["faults"]
    return result


@pytest.mark.parametrize("job", KILLS)
def test_killed_at_some_writes(job, tmp_path):
    assert check(job, tmp_path, "kill", *KILLS[job])["checked"] == len(KILLS[job])


@pytest.mark.parametrize("job", FULL)
def test_a_full_disk_at_some_files(job, tmp_path):
    assert check(job, tmp_path, "full", *FULL[job])["checked"] >= len(FULL[job])


@pytest.mark.slow
@pytest.mark.parametrize("job", [*KILLS, "folds"])
def test_killed_at_every_write(job, tmp_path):
    assert check(job, tmp_path, "kill", "all")["checked"] > 40


@pytest.mark.slow
@pytest.mark.parametrize("job", [*FULL, "folds"])
def test_a_full_disk_at_every_file(job, tmp_path):
    assert check(job, tmp_path, "full")["checked"] >= 2


def test_the_comparison_sees_a_difference(tmp_path):
    from killed import contents, differences

    (tmp_path / "a").mkdir()
    for name, text in (("run.json", '{"seconds": 1, "epochs": 2}'), ("log.jsonl", "x"), ("b.txt", "b")):
        (tmp_path / "a" / name).write_text(text)
    before = contents(tmp_path)
    (tmp_path / "a" / "run.json").write_text('{"seconds": 7, "epochs": 2}')
    (tmp_path / "a" / "log.jsonl").write_text("y")
    assert differences(before, contents(tmp_path)) == []
    (tmp_path / "a" / "run.json").write_text('{"seconds": 7, "epochs": 3}')
    (tmp_path / "a" / ".partial.1.b.txt").touch()
    (tmp_path / "a" / "b.txt").unlink()
    assert differences(before, contents(tmp_path)) == ["a/.partial.1.b.txt", "a/b.txt", "a/run.json"]
