"""Killed at any write, with the disk full at any file: what is there is whole, and the same call comes to the same."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the work runs in forks, under a limit of file sizes")
SCRIPT = Path(__file__).with_name("killed.py")
JOBS = "scan split init check train folds encode evaluate predict compare report export pack_raw pack_jpeg".split()
JOBS += ["scan_parts", "pack_parts", "encode_parts", "predict_parts", "scan_ray", "pack_ray"]
# Shares of all writes, in the fast tests. The late ones of a training are scores, results and the last removal.
KILLS = {
    "scan": ("0", "0.3", "0.6", "0.9", "1"),
    "encode": ("0.5", "0.97"),
    "pack_raw": ("0.3", "0.93"),
    "scan_parts": ("0.1", "0.5", "0.8"),
    "pack_parts": ("0.4", "0.9"),
    "encode_parts": ("0.4", "0.9"),
    "predict_parts": ("0.3", "0.7"),
    "pack_ray": ("0.5", "0.92"),
    "train": ("0.4", "0.86"),
}
FULL = {"scan": ("0", "0.5", "1"), "encode": ("1",), "pack_jpeg": ("0.3", "1"), "train": ("0.5",)}


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


@pytest.mark.parametrize("how", ["full", "partly"])
@pytest.mark.parametrize("job", FULL)
def test_a_full_disk_at_some_writes(job, how, tmp_path):
    assert check(job, tmp_path, how, *FULL[job])["checked"] == len(FULL[job])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "full", "partly"])
@pytest.mark.parametrize("job", JOBS)
def test_disturbed_at_every_write(job, how, tmp_path, capsys):
    result = check(job, tmp_path, how, "all")
    with capsys.disabled():
        print(f"\n{job}, {how}: {result}")
    assert result["checked"] == result["writes"] > 0


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
