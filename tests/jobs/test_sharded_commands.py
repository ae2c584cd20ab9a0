"""`--shard` and `merge`: the bytes of one process, for every command; what does not belong together is refused."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_dicom import write_dicom
from made_run import make_run, settings_for

import cinefeed as cf
from cinefeed.cli import main

ROWS = 13


def run(capsys, *words, code=0):
    """Run a command, and return its JSON, or its error if it should fail."""
    capsys.readouterr()
    status = main([str(word) for word in words] + (["--json"] if code == 0 else []))
    output = capsys.readouterr()
    assert status == code, output.err
    return json.loads(output.out) if code == 0 else output.err


def contents(path):
    if path.is_file():
        return path.read_bytes()
    files = [each for each in sorted(path.rglob("*")) if each.is_file()]
    return {each.relative_to(path).as_posix(): each.read_bytes() for each in files}


def in_parts(capsys, *words, parts, out, count=3):
    """Run all parts of a command, the last one first, and their merge."""
    numbers = reversed(range(count))
    done = [run(capsys, *words, "--out", parts, "--shard", f"{number}/{count}") for number in numbers]
    return done, run(capsys, "merge", parts, "--out", out)


@pytest.fixture
def videos(tmp_path):
    """Videos of several sizes, one that cannot be read, and a table of labels."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for row in range(ROWS):
        np.save(folder / f"{row:02}.npy", np.full((5 + row % 3 * 20, 12, 12), 9 * row, np.uint8))
    (folder / "05.npy").write_bytes(b"\x93NUMPY broken")
    table = {"path": [f"{row:02}.npy" for row in range(ROWS)], "age": [20.5 + row for row in range(ROWS)]}
    table["patient"] = [f"p{row // 2}" for row in range(ROWS)]
    table["note"] = [None] * 9 + ["x"] * (ROWS - 9)  # empty in some parts
    pq.write_table(pa.table(table), tmp_path / "labels.parquet")
    return folder


@pytest.fixture
def manifest(videos, tmp_path, capsys):
    path = tmp_path / "given.parquet"
    run(capsys, "scan", videos, "--labels", tmp_path / "labels.parquet", "--out", path)
    return path


@pytest.fixture
def trained(manifest, tmp_path):
    """A run of a tiny network on the readable videos."""
    settings = settings_for(manifest, train={"out": str(tmp_path / "run")}, feed={"batch_size": 3})
    make_run(settings)
    return tmp_path / "run"


@pytest.mark.parametrize("count", [1, 3, 20])
def test_a_scan(count, videos, tmp_path, capsys):
    words = ["scan", videos, "--labels", tmp_path / "labels.parquet"]
    run(capsys, *words, "--out", tmp_path / "one" / "m.parquet")
    done, merged = in_parts(capsys, *words, parts=tmp_path / "parts", out=tmp_path / "all" / "m.parquet", count=count)
    assert sum(each["rows"] for each in done) == merged["rows"] == ROWS and merged["parts"] == count
    assert contents(tmp_path / "all") == contents(tmp_path / "one")


def test_a_private_scan_has_one_salt_for_all_parts(tmp_path, capsys):
    for number in range(6):
        tags = {"HeartRate": 60 + number} if number == 4 else {}  # a column that all parts but one lack
        frames = np.full((3, 12, 16), number, np.uint8)
        uids = {
            f"{level}InstanceUID": f"1.2.{place}.{number}" for place, level in enumerate(("Study", "Series", "SOP"))
        }
        write_dicom(tmp_path / "videos" / f"{number}.dcm", frames, PatientID=f"P{number // 2}", **uids, **tags)
    words = ["scan", tmp_path / "videos", "--private"]
    _, _ = in_parts(capsys, *words, parts=tmp_path / "parts", out=tmp_path / "all" / "m.parquet")
    (tmp_path / "one").mkdir()
    shutil.copy(tmp_path / "parts" / "salt", tmp_path / "one" / "m.parquet.salt")
    run(capsys, *words, "--out", tmp_path / "one" / "m.parquet")
    assert contents(tmp_path / "all") == contents(tmp_path / "one")
    assert cf.Manifest.read(tmp_path / "all" / "m.parquet").column("heart_rate_bpm").null_count == 5
    assert (tmp_path / "parts" / "salt").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "all" / "m.parquet.salt").stat().st_mode & 0o777 == 0o600
    (tmp_path / "all" / "m.parquet.salt").write_text("other\n")
    assert "another salt" in run(capsys, "merge", tmp_path / "parts", "--out", tmp_path / "all/m.parquet", code=1)
    salt_option = ["--salt", "pepper"]
    run(capsys, *words, *salt_option, "--out", tmp_path / "one" / "n.parquet")
    in_parts(capsys, *words, *salt_option, parts=tmp_path / "others", out=tmp_path / "all" / "n.parquet")
    assert contents(tmp_path / "all" / "n.parquet") == contents(tmp_path / "one" / "n.parquet")
    assert not (tmp_path / "others" / "salt").exists() and not (tmp_path / "all" / "n.parquet.salt").exists()


def test_a_merged_scan_keeps_the_split_and_is_continued_by_one_process(videos, tmp_path, capsys):
    words, out = ["scan", videos, "--labels", tmp_path / "labels.parquet"], tmp_path / "m.parquet"
    in_parts(capsys, *words, parts=tmp_path / "parts", out=out)
    run(capsys, "split", out, "--out", out, "--group", "patient")
    split = cf.Manifest.read(out).column("split")
    run(capsys, "merge", tmp_path / "parts", "--out", out)
    assert cf.Manifest.read(out).column("split") == split
    before = contents(out)
    run(capsys, *words, "--out", out)
    assert contents(out) == before


@pytest.mark.parametrize("count", [1, 3, 9])
@pytest.mark.parametrize("codec", ["raw", "jpeg"])
def test_packing(codec, count, manifest, tmp_path, capsys):
    words = ["pack", manifest, "--codec", codec, "--rows-per-shard", 3, "--workers", 0]
    one = run(capsys, *words, "--out", tmp_path / "all")
    (tmp_path / "all").rename(tmp_path / "one")  # the manifest holds the path that it was written to
    done, merged = in_parts(capsys, *words, parts=tmp_path / "parts", out=tmp_path / "all", count=count)
    assert contents(tmp_path / "all") == contents(tmp_path / "one")
    assert {name: merged[name] for name in ("rows", "shards", "bytes", "failures")} == {
        name: one[name] for name in ("rows", "shards", "bytes", "failures")
    }
    assert len(merged["failures"]) == 1 and [each["new"] for each in done] == [True] * count
    run(capsys, "merge", tmp_path / "parts", "--out", tmp_path / "all")  # again, over what is there
    shutil.rmtree(tmp_path / "parts")
    assert contents(tmp_path / "all") == contents(tmp_path / "one")
    assert run(capsys, "pack", tmp_path / "all", "--verify")["faults"] == []


@pytest.mark.parametrize("count", [3, 20])
def test_encoding(count, trained, manifest, tmp_path, capsys):
    words = ["encode", trained, manifest]
    run(capsys, *words, "--out", tmp_path / "all")
    (tmp_path / "all").rename(tmp_path / "one")
    done, merged = in_parts(capsys, *words, parts=tmp_path / "parts", out=tmp_path / "all", count=count)
    ours, theirs = contents(tmp_path / "all"), contents(tmp_path / "one")
    tables = [pq.read_table(tmp_path / name / "features.parquet") for name in ("all", "one")]
    one, merged_table = (each.drop_columns("mtime_ns") for each in tables)
    assert merged_table == one and tables[0].schema.names == tables[1].schema.names
    assert tables[0].schema.metadata[b"cinefeed"] == tables[1].schema.metadata[b"cinefeed"]
    for each in (ours, theirs):
        each.pop("features.parquet")  # it holds the time at which features were written
    assert ours == theirs and len(ours) == ROWS
    assert sum(each["rows"] for each in done) == merged["rows"] == ROWS and len(merged["failures"]) == 1
    assert run(capsys, *words, "--out", tmp_path / "all")["computed"] == 0  # its journal is that of one process


@pytest.mark.parametrize("suffix", ["parquet", "csv", "json"])
@pytest.mark.parametrize("options", [(), ("--clips", 2), ("--clips", 2, "--per-clip")])
def test_prediction(options, suffix, trained, manifest, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cinefeed.training.predict.ROWS_AT_ONCE", 4)
    monkeypatch.setattr("cinefeed.jobs.predict.ROWS_AT_ONCE", 4)
    words = ["predict", trained, "--manifest", manifest, *options]
    one, merged = tmp_path / f"one.{suffix}", tmp_path / f"all.{suffix}"
    run(capsys, *words, "--out", one)
    in_parts(capsys, *words, parts=tmp_path / "parts", out=merged)
    assert contents(merged) == contents(one)
    if suffix == "parquet":
        assert pq.ParquetFile(merged).num_row_groups > 1


def test_a_complete_part_is_not_made_again_and_an_interrupted_one_continues(manifest, tmp_path, capsys):
    words = ["pack", manifest, "--codec", "raw", "--rows-per-shard", 2, "--workers", 0, "--out", tmp_path / "parts"]
    assert run(capsys, *words, "--shard", "0/2")["new"]
    assert not run(capsys, *words, "--shard", "0/2")["new"]
    folder = tmp_path / "parts" / "part-0000-of-0002"
    (folder / "done.json").unlink()
    shards = sorted((folder / "packed" / "shards").iterdir())
    shards[0].unlink()
    before = shards[1].stat().st_mtime_ns
    assert run(capsys, *words, "--shard", "0/2")["new"]
    assert shards[0].exists() and shards[1].stat().st_mtime_ns == before


def test_other_settings_inputs_and_damage_are_refused(manifest, videos, tmp_path, capsys):
    parts, out = tmp_path / "parts", tmp_path / "all"
    words = ["pack", manifest, "--rows-per-shard", 3, "--workers", 0]
    for number in range(3):
        run(capsys, *words, "--codec", "raw", "--out", parts, "--shard", f"{number}/3")
    error = run(capsys, *words, "--codec", "ffv1", "--out", parts, "--shard", "1/3", code=2)
    assert "part-0001-of-0003" in error and "settings codec: 'raw' and 'ffv1'" in error
    error = run(capsys, *words, "--codec", "raw", "--out", parts, "--shard", "0/2", code=2)
    assert "a part of 3" in error
    shutil.rmtree(parts / "part-0001-of-0003")
    error = run(capsys, "merge", parts, "--out", out, code=1)
    assert "1 part of 3 missing: 1/3" in error and "cinefeed pack ... --shard NUMBER/3" in error and not out.exists()
    run(capsys, *words, "--codec", "ffv1", "--out", tmp_path / "others", "--shard", "1/3")
    error = run(capsys, "merge", parts, tmp_path / "others", "--out", out, code=2)
    assert "others/part-0001-of-0003" in error and "settings codec" in error and not out.exists()
    run(capsys, *words, "--codec", "raw", "--out", tmp_path / "third", "--shard", "1/3")
    assert run(capsys, "merge", parts, tmp_path / "third", "--out", out)["parts"] == 3
    shutil.copytree(parts / "part-0000-of-0003", tmp_path / "fourth" / "part-0001-of-0003")
    error = run(capsys, "merge", parts, tmp_path / "fourth", "--out", out, code=1)
    assert "doubled" in error and "fourth" in error
    for name, change in (("rows.arrow", "damaged"), ("packed/shards/000000.tar", "bytes were written")):
        damaged = parts / "part-0000-of-0003" / name
        content = damaged.read_bytes()
        damaged.write_bytes(b"x" + content[1:] if name == "rows.arrow" else content[:-1])
        error = run(capsys, "merge", parts, tmp_path / "third", "--out", out, code=1)
        assert change in error and "part-0000-of-0003" in error
        damaged.write_bytes(content)
    np.save(videos / "00.npy", np.zeros((4, 12, 12), np.uint8))
    other = tmp_path / "other.parquet"
    run(capsys, "scan", videos, "--labels", tmp_path / "labels.parquet", "--out", other)
    words[1] = other
    error = run(capsys, *words, "--codec", "raw", "--out", parts, "--shard", "0/3", code=2)
    assert "inputs manifest" in error


def test_a_folder_that_changes_between_the_parts_of_a_scan_is_refused(videos, tmp_path, capsys):
    words = ["scan", videos, "--out", tmp_path / "parts", "--shard"]
    run(capsys, *words, "0/2")
    np.save(videos / "new.npy", np.zeros((4, 12, 12), np.uint8))
    run(capsys, *words, "1/2")
    error = run(capsys, "merge", tmp_path / "parts", "--out", tmp_path / "m.parquet", code=2)
    assert "inputs samples" in error and f"{ROWS} and {ROWS + 1}" in error
    assert not (tmp_path / "m.parquet").exists()


def test_what_is_asked_wrongly(manifest, trained, videos, tmp_path, capsys):
    for words, message in (
        (["scan", videos, "--out", tmp_path / "parts", "--shard", "3/3"], "from 0 to COUNT - 1"),
        (["scan", videos, "--out", manifest, "--shard", "0/3"], "is a file"),
        (["pack", manifest, "--out", tmp_path / "parts", "--shard", "0/3"], "--shard needs --codec"),
        (["predict", trained, videos, "--out", tmp_path / "parts", "--shard", "0/3"], "--shard needs --manifest"),
        (["merge", tmp_path / "nothing", "--out", tmp_path / "m.parquet"], "does not exist"),
        (["merge", videos, "--out", tmp_path / "m.parquet"], "has no parts"),
    ):
        assert message in run(capsys, *words, code=2)
