"""Tables by suffix: what is named .csv is CSV, what is named .json is JSON, and other suffixes are refused."""

import datetime
import json
import threading

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cinefeed.core.errors import InUseError, SettingError, TableError
from cinefeed.core.locks import write_lock
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.write_table import write_table

TABLE = pa.table(
    {
        "id": ['say "a", b', "ü", None],
        "n": [1, None, 3],
        "x": [0.1, float("nan"), float("inf")],
        "sick": [True, False, None],
        "ticks": [[1, 2], None, []],
        "day": [datetime.date(2024, 1, 2), None, None],
    }
)


@pytest.fixture
def folder(tmp_path):
    for row in range(3):
        np.save(tmp_path / f"{row}.npy", np.full((4, 8, 8), 50 * row, np.uint8))
    return tmp_path


def test_each_suffix_is_written_as_what_it_says(tmp_path):
    write_table(tmp_path / "t.parquet", [TABLE, TABLE])
    assert str(pq.read_table(tmp_path / "t.parquet").to_pylist()) == str(TABLE.to_pylist() * 2)
    write_table(tmp_path / "t.csv", [TABLE, TABLE])
    read = pd.read_csv(tmp_path / "t.csv")
    assert read["id"].tolist()[:2] == ['say "a", b', "ü"] and len(read) == 6
    assert read["x"].tolist()[0] == 0.1 and read["x"].isna().tolist()[:3] == [False, True, False]
    assert read["ticks"].tolist()[0] == "[1, 2]" and read["day"].tolist()[0] == "2024-01-02"
    write_table(tmp_path / "t.json", [TABLE, TABLE])
    rows = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert rows[0] == {"id": 'say "a", b', "n": 1, "x": 0.1, "sick": True, "ticks": [1, 2], "day": "2024-01-02"}
    assert rows[5] == {"id": None, "n": 3, "x": None, "sick": None, "ticks": [], "day": None}


@pytest.mark.parametrize("name", ["t.xlsx", "t", "t.csv.gz", "t.tsv"])
def test_another_suffix_is_refused(tmp_path, name):
    with pytest.raises(SettingError, match=r"the suffix of a table must be .*; name it t.*\.parquet"):
        write_table(tmp_path / name, [TABLE])
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    def broken():
        yield TABLE
        raise RuntimeError

    for name in ("t.csv", "t.json", "t.parquet"):
        (tmp_path / name).write_text("before")
        with pytest.raises(RuntimeError):
            write_table(tmp_path / name, broken())
        assert (tmp_path / name).read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_scan_into_a_table_for_other_programs(folder, suffix):
    out = folder / f"videos.{suffix}"
    manifest = Manifest.scan(folder, out=out)
    table = pd.read_csv(out) if suffix == "csv" else pd.read_json(out)
    assert table["path"].tolist() == ["0.npy", "1.npy", "2.npy"] and table["num_frames"].tolist() == [4, 4, 4]
    manifest.split(val=0.3, test=0.3, group=None).all.write(out)
    again = Manifest.scan(folder, out=out)  # which keeps the parts
    assert sorted(again.column("split").to_pylist()) == ["test", "train", "val"]
    with pytest.raises(TableError, match=r"Manifest.from_table\(path, root=FOLDER\)"):
        Manifest.read(out)
    if suffix == "csv":
        back = Manifest.from_table(out, root=folder)
        assert back.metadata(1).times.count == 4 and back.open(1).read([0]).mean() == 50
    out.write_text("my,thesis\n1,2\n" if suffix == "csv" else "my thesis")
    with pytest.raises(TableError, match="choose another name, or delete it"):
        Manifest.scan(folder, out=out)


def test_a_private_manifest_names_no_file_in_a_table_for_other_programs(folder):
    manifest = Manifest.scan(folder, private=True, out=folder / "m.csv")
    assert "0.npy" not in (folder / "m.csv").read_text() and len(manifest) == 3
    assert len(Manifest.scan(folder, private=True, out=folder / "m.csv")) == 3


def test_a_manifest_that_another_process_writes_is_refused(folder):
    refused = []

    def write():
        for work in (
            lambda: Manifest.scan(folder, out=folder / "m.parquet"),
            lambda: whole.write(folder / "m.parquet"),
        ):
            try:
                work()
            except InUseError as error:
                refused.append(str(error))

    whole = Manifest.scan(folder)
    with write_lock(folder / "m.parquet"):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert len(refused) == 2 and "m.parquet is being written by process" in refused[0]
    assert not list(folder.glob("*m.parquet*"))


def test_a_newer_manifest_is_refused_with_the_remedy(folder):
    out = folder / "m.parquet"
    Manifest.scan(folder, out=out)
    table = pq.read_table(out)
    notes = json.loads(table.schema.metadata[b"cinefeed"])
    for version, message in ((notes["version"] + 1, "pip install --upgrade cinefeed"), (None, "no format version")):
        changed = {b"cinefeed": json.dumps(notes | {"version": version}).encode()}
        pq.write_table(table.replace_schema_metadata(changed), out)
        with pytest.raises(TableError, match=message):
            Manifest.read(out)
        with pytest.raises(TableError, match=message):
            Manifest.scan(folder, out=out)
