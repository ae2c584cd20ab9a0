"""Label tables and file names as people have them: each is joined as expected, or refused with a message that says why.

The files are small arrays; what a video holds plays no part here.
"""

import datetime
import pickle
import unicodedata
import zipfile
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cinefeed as cf
from cinefeed.core.errors import CinefeedError

FILES = ("p1/a.npy", "p1/b.npy", "p2/c.npy")
GRADES = ["low", "high", "low"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A table (text, bytes, or a frame) and what becomes of it: the labels of the files, in order, or a message."""

    table: Any
    labels: list[Any] | None = field(default_factory=lambda: GRADES)
    message: str = ""
    files: tuple[str, ...] = FILES
    name: str = "labels.csv"
    column: str = "grade"
    options: dict[str, Any] = field(default_factory=dict)


def of(table, **changes):
    return Case(table=table, **changes)


def refused(table, message, **changes):
    return Case(table=table, message=message, labels=None, **changes)


def rows(*keys, header="path,grade", values=GRADES, mark=",", end="\n"):
    """Return the text of a table of keys and values."""
    lines = [f"{key}{mark}{value}" for key, value in zip(keys, values, strict=True)]
    return end.join([*([header] if header else []), *lines, ""])


PLAIN = rows(*FILES)
NFD = tuple(unicodedata.normalize("NFD", f"M\u00fcller_{n}.npy") for n in range(3))
NFC = tuple(unicodedata.normalize("NFC", name) for name in NFD)


def ages(*values):
    return rows(*FILES, header="path,age", values=values)


def parquet(frame):
    file = BytesIO()
    pq.write_table(frame, file)
    return file.getvalue()


def archive():
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("xl/workbook.xml", "")
    return file.getvalue()


BY_FOLDER = {"path_columns": "{patient}/{clip}"}
CASES = {
    # encodings
    "UTF-8": of(PLAIN),
    "UTF-8 with a mark": of("\ufeff" + PLAIN),
    "UTF-16, little end first": of(b"\xff\xfe" + PLAIN.encode("utf-16-le")),
    "UTF-16, big end first": of(b"\xfe\xff" + PLAIN.encode("utf-16-be")),
    "Windows-1252": refused(
        rows(*FILES, values=["mäßig", "x", "y"]).encode("cp1252"), "not UTF-8.*0xE4.*'ä'.*CSV UTF-8"
    ),
    "letters beyond ASCII": of(rows(*FILES, values=["mäßig", "痛", "y"]), labels=["mäßig", "痛", "y"]),
    "lines of Windows": of(rows(*FILES, end="\r\n")),
    "lines of an old Mac": of(rows(*FILES, end="\r")),
    "no end of the last line": of(PLAIN.rstrip("\n")),
    # separators
    "semicolons": of(rows(*FILES, header="path;grade", mark=";")),
    "tabs": of(rows(*FILES, header="path\tgrade", mark="\t"), name="labels.tsv"),
    "bars": of(rows(*FILES, header="path|grade", mark="|")),
    "a line for Excel": of("sep=;\n" + rows(*FILES, header="path;grade", mark=";")),
    "blanks": of(rows(*FILES, header="path grade", mark=" "), name="labels.txt"),
    "quotes with a comma inside": of(rows(*FILES, values=['"a, b"', "c", '"a, b"']), labels=["a, b", "c", "a, b"]),
    "the index of pandas": of(f",path,grade\n0,{FILES[0]},low\n1,{FILES[1]},high\n2,{FILES[2]},low\n"),
    "blanks around names and values": of(rows(*FILES, header=" path , grade ", values=[" low", "high ", "low"])),
    # types
    "whole numbers": of(ages(61, 40, 55), labels=[61, 40, 55], column="age"),
    "floats": of(ages(61.5, 40, 55), labels=[61.5, 40.0, 55.0], column="age"),
    "exponents": of(ages("1.5e3", "1e-05", "2.0"), labels=[1500.0, 1e-5, 2.0], column="age"),
    "decimal commas": of(
        rows(*FILES, header="path;age", mark=";", values=["61,5", "1.040,2", "7"]),
        labels=[61.5, 1040.2, 7],
        column="age",
    ),
    "thousands stay text": of(ages('"1,234"', '"2,345"', "7"), labels=["1,234", "2,345", "7"], column="age"),
    "leading zeros stay text": of(ages("007", "040", "055"), labels=["007", "040", "055"], column="age"),
    "long digits stay text": of(ages(*["1234567890123456789"] * 3), labels=["1234567890123456789"] * 3, column="age"),
    "hexadecimal ids stay text": of(ages("12345e67", "1e2", "3"), labels=["12345e67", "1e2", "3"], column="age"),
    "dates stay text": of(ages("2020-01-31", "31.1.2020", "x"), labels=["2020-01-31", "31.1.2020", "x"], column="age"),
    "booleans of Python": of(ages("True", "False", "True"), labels=[True, False, True], column="age"),
    "booleans of Excel": of(ages("TRUE", "FALSE", "TRUE"), labels=[True, False, True], column="age"),
    "yes and no stay text": of(ages("yes", "no", "yes"), labels=["yes", "no", "yes"], column="age"),
    # missing marks
    "an empty cell": of(ages(61, "", 55), labels=[61, None, 55], column="age"),
    "NA": of(ages(61, "NA", 55), labels=[61, None, 55], column="age"),
    "None and <NA>": of(rows(*FILES, values=["low", "None", "<NA>"]), labels=["low", None, None]),
    "a mark between blanks": of(ages(61, " NaN ", 55), labels=[61, None, 55], column="age"),
    "none and a dash are values": of(rows(*FILES, values=["none", "-", "low"]), labels=["none", "-", "low"]),
    # names and keys
    "file names": of(rows("a.npy", "b.npy", "c.npy", header="filename,grade")),
    "stems": of(rows("a", "b", "c", header="Stem,grade")),
    "paths without suffix": of(rows("p1/a", "p1/b", "p2/c")),
    "a column of another name": of(rows(*FILES, header="clip,grade"), options={"on": "clip"}),
    "a column of another name, not named": refused(rows(*FILES, header="clip,grade"), "on='clip' .*--on clip"),
    "a column whose name has a space": refused(rows(*FILES, header="Video File,grade"), "--on 'Video File'"),
    "numbers as stems": of(rows(1, 2, 3, header="stem,grade"), files=("1.npy", "2.npy", "3.npy")),
    "a dot before": of(rows("./p1/a.npy", "./p1/b.npy", "./p2/c.npy")),
    "paths of Windows": of(rows("p1\\a.npy", "p1\\b.npy", "p2\\c.npy")),
    "absolute paths of Windows": of(rows("D:\\all\\p1\\a.npy", "D:\\all\\p1\\b.npy", "D:\\all\\p2\\c.npy")),
    "absolute paths of a share": of(rows("\\\\nas\\x\\p1\\a.npy", "\\\\nas\\x\\p1\\b.npy", "\\\\nas\\x\\p2\\c.npy")),
    "absolute paths of this machine": of(rows("{root}/p1/a.npy", "{root}/p1/b.npy", "{root}/p2/c.npy")),
    "absolute paths of another machine": of(rows("/home/x/s/p1/a.npy", "/home/x/s/p1/b.npy", "/home/x/s/p2/c.npy")),
    "paths from one folder above": of(rows("studies/p1/a.npy", "studies/p1/b.npy", "studies/p2/c.npy")),
    "paths of other folders": refused(rows("q1/a.npy", "q1/b.npy", "q2/c.npy"), "3 match by file name alone"),
    "upper case in the table": of(rows("P1/A.NPY", "P1/B.NPY", "P2/C.NPY")),
    "upper case in the files": of(rows("p1/a.npy", "p1/b.npy", "p2/c.npy"), files=("P1/A.NPY", "P1/b.npy", "p2/C.npy")),
    "case that tells files apart": refused(
        rows("A.npy", "B.npy", "C.npy"), "keys match several videos", files=("a.npy", "A.npy", "b.npy", "c.npy")
    ),
    "composed names of decomposed files": of(rows(*NFC), files=NFD),
    "decomposed names of composed files": of(rows(*NFD), files=NFC),
    "file names that two folders share": refused(
        rows("a.npy", "c.npy", values=["low", "high"]), "a.npy.*relative to", files=("p1/a.npy", "p2/a.npy", "p2/c.npy")
    ),
    "two rows for a video": refused(rows(*FILES, FILES[0], values=[*GRADES, "high"]), "1 keys occur in several rows"),
    "a row without a video": refused(
        rows(*FILES, "p3/d.npy", values=[*GRADES, "x"]), r"1 of 4 rows matches no video \(first: p3/d.npy\)"
    ),
    "a video without a row": refused(
        rows(*FILES[:2], values=GRADES[:2]), "1 of 3 videos has no row.*--unmatched ignore"
    ),
    "a row a patient": of(
        "patient,grade\np1,low\np2,high\n", labels=["low", "low", "high"], options={"on": "patient", **BY_FOLDER}
    ),
    "a row a patient, by another name": of(
        "PatientID,grade\np1,low\np2,high\n",
        labels=["low", "low", "high"],
        options={"on": "PatientID=patient", **BY_FOLDER},
    ),
    "a row a patient, not named": refused(
        "PatientID,grade\np1,low\np2,high\n", "--on PatientID=patient", options=BY_FOLDER
    ),
    "a row a patient, named as files": refused(
        "PatientID,grade\np1,low\np2,high\n", "--on PatientID=patient", options={"on": "PatientID", **BY_FOLDER}
    ),
    "a pair that is not there": refused(
        PLAIN, "no column 'pation'.*patient", options={"on": "path=pation", **BY_FOLDER}
    ),
    # kinds of files
    "Parquet": of(parquet(pa.table({"path": FILES, "grade": GRADES})), name="labels.parquet"),
    "Parquet by another name": of(parquet(pa.table({"path": FILES, "grade": GRADES})), name="labels"),
    "JSON rows": of(
        '[{"path": "a", "grade": "low"}, {"path": "b", "grade": "high"}, {"path": "c"}]',
        labels=["low", "high", None],
        name="l.json",
    ),
    "JSON, a row a line": of(
        '{"path": "a", "grade": 1}\n{"path": "b", "grade": 2}\n{"path": "c", "grade": 3}\n',
        labels=[1, 2, 3],
        name="l.jsonl",
    ),
    "JSON columns": of('{"path": ["a", "b", "c"], "grade": ["low", "high", "low"]}', name="l.json"),
    "JSON of pandas": of(pd.DataFrame({"path": ["a", "b", "c"], "grade": GRADES}).to_json(), name="l.json"),
    "JSON by path": of('{"p1/a.npy": "low", "p1/b.npy": "high", "p2/c.npy": "low"}', name="l.json", column="label"),
    "JSON of numbers and NA": of(
        '[{"path": "a", "grade": 61}, {"path": "b", "grade": "NA"}, {"path": "c", "grade": 40.5}]',
        name="l.json",
        labels=[61.0, None, 40.5],
    ),
    "JSON by name without suffix": refused(
        '{"a": 1, "b": 2, "c": 1}', "not a JSON table; .* by the path of each video with its suffix", name="l.json"
    ),
    "a list of stems without a header": refused("a 3\nb 4\nc 3\n", "add a header line, such as 'path,label'"),
    "a frame with paths as a nameless index": refused(
        pd.DataFrame({"grade": GRADES}, index=list(FILES)), r"a frame's index: reset_index\(\)"
    ),
    "a frame with two columns of one name": refused(
        pd.DataFrame([["a", 1, 2]], columns=["path", "grade", "grade"]), "Duplicate column names .* rename all but one"
    ),
    "JSON of other things": refused(
        "[1, 2, 3]", "not a JSON table; give a list with one object per video", name="l.json"
    ),
    "an Excel workbook": refused(archive(), "an Excel workbook .*CSV UTF-8", name="labels.xlsx"),
    "a compressed table": refused(b"\x1f\x8b\x08" + bytes(20), "compressed", name="labels.csv.gz"),
    "a pickle": refused(pickle.dumps({"path": FILES}), "a pickle", name="labels.pkl"),
    "an empty file": refused("", "is empty"),
    "a header alone": refused("path,grade\n", "has no rows"),
    "two columns of one name": refused(rows(*FILES, header="path,path"), "more than one column named 'path'"),
    "a list without a header": of(
        rows(*FILES, header="", mark=" ", values=[0, 1, 0]), labels=[0, 1, 0], column="label", name="l.txt"
    ),
    "a list without a header, of commas": of(rows(*FILES, header=""), column="label"),
    "a list without a header, of tabs": of(rows(*FILES, header="", mark="\t"), column="label"),
    "a list of names with blanks": of(
        "my a.npy 0\nmy b.npy 1\n", labels=[0, 1], files=("my a.npy", "my b.npy"), column="label", name="l.txt"
    ),
    "a list of three columns": refused(
        "p1/a.npy 12 0\np1/b.npy 9 1\n", "has no header: its first line is 'p1/a.npy 12 0'"
    ),
    # frames
    "columns by name": of({"path": FILES, "grade": GRADES}),
    "a frame of pandas": of(pd.DataFrame({"path": FILES, "grade": GRADES})),
    "a frame with an index": of(pd.DataFrame({"path": FILES, "grade": GRADES}).set_index("path").reset_index()),
    "a frame of Polars": of(pl.DataFrame({"path": FILES, "grade": GRADES})),
    "a frame with marks": of(pd.DataFrame({"path": FILES, "grade": ["low", "None", ""]}), labels=["low", None, None]),
    "a frame of NaN": of(pd.DataFrame({"path": FILES, "grade": [1.5, np.nan, 2.0]}), labels=[1.5, None, 2.0]),
    "a frame of categories": of(
        pd.DataFrame({"path": FILES, "grade": pd.Categorical([1, 2, 1])}), labels=["1", "2", "1"]
    ),
    "a frame of numbers and text": refused(
        pd.DataFrame({"path": FILES, "grade": [1, "a", 2.5]}), "column 'grade' mixes float and int and str"
    ),
    "a frame of numbers and marks": of(
        pd.DataFrame({"path": FILES, "grade": pd.Series([61, "NA", 3], dtype=object)}), labels=[61, None, 3]
    ),
    "a frame of booleans and marks": of(
        pd.DataFrame({"path": FILES, "grade": pd.Series([True, "n/a", False], dtype=object)}),
        labels=[True, None, False],
    ),
    "a frame of numbers and marks, of which the index names the column": of(
        pd.DataFrame({"path": FILES, "grade": pd.Series([61.5, "", 3], dtype=object)}).set_index("path"),
        labels=[61.5, None, 3.0],
    ),
    "columns of numbers and marks": of({"path": FILES, "grade": [61, "NA", pd.NA]}, labels=[61, None, None]),
    "numbers beside a word that is no mark": refused(
        {"path": FILES, "grade": [61, "none", "NA"]}, "column 'grade' mixes int and str"
    ),
    "Parquet of categories": of(
        parquet(pa.table({"path": FILES, "grade": pa.array([3, 5, 3]).dictionary_encode()})),
        labels=["3", "5", "3"],
        name="labels.parquet",
    ),
    "a frame of Polars with categories": of(
        pl.DataFrame({"path": FILES, "grade": GRADES}, schema_overrides={"grade": pl.Categorical})
    ),
    "a frame of Polars with objects": refused(
        pl.DataFrame({"path": FILES, "grade": pl.Series([1, "NA", 3], dtype=pl.Object)}), "neither text nor numbers"
    ),
    "a frame of intervals": refused(
        pd.DataFrame({"path": FILES, "grade": pd.cut([1, 5, 9], 3)}), "'grade' holds .*interval.*neither text nor"
    ),
    "a frame of periods": refused(
        pd.DataFrame({"path": FILES, "grade": pd.period_range("2020-01", periods=3, freq="M")}), "neither text nor"
    ),
    "a frame of no categories": of(
        pd.DataFrame({"path": FILES, "grade": pd.Categorical([None] * 3)}), labels=[None] * 3
    ),
    "a frame of categories with gaps": of(
        pd.DataFrame({"path": FILES, "grade": pd.Categorical([1.5, None, 2.0])}), labels=["1.5", None, "2"]
    ),
    "an Arrow file": refused(b"ARROW1\0\0\xff\xff", "an Arrow or Feather file", name="labels.feather"),
    "a frame of lists": of(
        pd.DataFrame({"path": FILES, "grade": [["a"], ["b"], ["a", "b"]]}), labels=[["a"], ["b"], ["a", "b"]]
    ),
    "a frame of dates": of(
        pd.DataFrame({"path": FILES, "grade": [datetime.date(2020, 1, 1)] * 3}), labels=[datetime.date(2020, 1, 1)] * 3
    ),
    "a column called part": refused(
        rows(*FILES, header="path,part", values=["arm", "leg", "arm"]), "column 'part' holds 'arm'.*rename"
    ),
    "a column of numbers called part": refused(
        rows(*FILES, header="path,part", values=[1, 2, 1]), "each file here is one sample; rename"
    ),
    "empty lines before the header": of("\n \n" + PLAIN),
    "UTF-16 without a mark": refused(PLAIN.encode("utf-16-le"), "zero bytes.*UTF-16 without a byte order mark"),
    "a column called height": refused(
        rows(*FILES, header="path,height", values=[170, 180, 190]), "'height' is a reserved column name"
    ),
}


def test_there_are_sixty():
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", CASES)
def test_a_table_of_people(tmp_path, name):
    case, root = CASES[name], tmp_path / "studies"
    for number, file in enumerate(case.files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        with (root / file).open("wb") as opened:
            np.save(opened, np.full((2, 4, 4), number, np.uint8))
    table = case.table
    if isinstance(table, str):
        table = table.replace("{root}", root.as_posix()).encode()
    if isinstance(table, bytes):
        (tmp_path / case.name).write_bytes(table)
        table = tmp_path / case.name
    if case.labels is None:
        with pytest.raises(CinefeedError, match=f"(?s){case.message}"):
            cf.Manifest.scan(root, labels=table, progress=False, **case.options)
        return
    manifest = cf.Manifest.scan(root, labels=table, progress=False, **case.options)
    label_of = dict(zip(manifest.column("path").to_pylist(), manifest.column(case.column).to_pylist(), strict=True))
    assert label_of == dict(zip(case.files, case.labels, strict=True))
    assert manifest.column("error").null_count == len(manifest)


def test_the_other_name_of_a_key_is_left_out_since_the_videos_own_may_be_hashed(tmp_path):
    np.save(tmp_path / "p1_a.npy", np.zeros((2, 4, 4), np.uint8))
    table = {"PatientID": ["p1"], "age": [61]}
    options = {"on": "PatientID=patient", "path_columns": "{patient}_{clip}"}
    manifest = cf.Manifest.scan(tmp_path, labels=table, progress=False, **options)
    assert manifest.labels == ["patient", "clip", "age"]
