import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cinefeed.core.errors import TableError
from cinefeed.data.manifest.read_table import read_table


def table_of(tmp_path, text, *, encoding="utf-8"):
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return read_table(path)


def test_ids_stay_text_and_numbers_become_numbers(tmp_path):
    table = table_of(
        tmp_path,
        "path,patient,study_id,valid,age,flag,uid,hash,small\n"
        "a.mp4,007,12,1,61.5,true,12345678901234567890,12345e67,1e-05\n"
        "b.mp4,12,13,0,48,FALSE,2,9,2.5E3\n",
    )
    assert table.to_pydict() == {
        "path": ["a.mp4", "b.mp4"],
        "patient": ["007", "12"],
        "study_id": ["12", "13"],
        "valid": [1, 0],
        "age": [61.5, 48.0],
        "flag": [True, False],
        "uid": ["12345678901234567890", "2"],
        "hash": ["12345e67", "9"],
        "small": [1e-05, 2500.0],
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("start", ["", "sep=;\r\n"])
def test_byte_order_mark_semicolons_and_decimal_commas(tmp_path, encoding, start):
    table = table_of(tmp_path, start + "path;größe;wert\r\nä.mp4;1,75;1.234,5\r\nb.mp4;2;-0,5\r\n", encoding=encoding)
    assert table.to_pydict() == {"path": ["ä.mp4", "b.mp4"], "größe": [1.75, 2.0], "wert": [1234.5, -0.5]}


def test_a_comma_in_a_comma_separated_file_may_be_a_thousand(tmp_path):
    table = table_of(tmp_path, 'path,ml,age\na.mp4,"1,234","61,5"\nb.mp4,"2,500","48,25"\n')
    assert table.to_pydict() == {"path": ["a.mp4", "b.mp4"], "ml": ["1,234", "2,500"], "age": [61.5, 48.25]}


def test_missing_values_and_spaces_and_an_index_column(tmp_path):
    table = table_of(tmp_path, ",path, age ,label\n0,a.mp4,NA,none\n1, b.mp4 ,61,\n2,c.mp4,,NaN\n")
    assert table.to_pydict() == {
        "path": ["a.mp4", "b.mp4", "c.mp4"],
        "age": [None, 61, None],
        "label": ["none", None, None],
    }


def test_a_separator_inside_quotes_does_not_count(tmp_path):
    table = table_of(tmp_path, '"a;b;c",path\n"x, y\nz",v.mp4\n')
    assert table.to_pydict() == {"a;b;c": ["x, y\nz"], "path": ["v.mp4"]}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is empty"),
        (b"path,age\n", "has no rows"),
        (b"path,age\na.mp4\n", "not a CSV table"),
        (b"path,path\na.mp4,b.mp4\n", "more than one column named 'path'"),
        ("path,größe\n".encode("latin-1"), "not UTF-8"),
        (b"PAR1 and then nothing", "damaged Parquet"),
    ],
)
def test_a_bad_table_is_refused(tmp_path, raw, message):
    path = tmp_path / "labels.csv"
    path.write_bytes(raw)
    with pytest.raises(TableError, match=message):
        read_table(path)


def test_no_file_and_no_table(tmp_path):
    with pytest.raises(TableError, match="cannot be read"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(TableError, match="found list"):
        read_table(["a.mp4"])
    with pytest.raises(TableError, match="columns of equal length"):
        read_table({"path": ["a.mp4"], "age": [1, 2]})


def test_columns_by_name():
    assert read_table({"path": ["a.mp4"], "age": [61]}).to_pylist() == [{"path": "a.mp4", "age": 61}]


def test_parquet_and_frames_of_any_library(tmp_path):
    columns = {"path": ["a.mp4", "b.mp4"], "age": [61.0, float("nan")], "view": ["4ch", "2ch"]}
    expected = {"path": ["a.mp4", "b.mp4"], "age": [61.0, None], "view": ["4ch", "2ch"]}
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    frame = pd.DataFrame(columns, index=[5, 9]).astype({"view": "category"})
    for source in (tmp_path / "labels.parquet", frame, pl.DataFrame(columns), pa.table(columns)):
        table = read_table(source)
        assert table.to_pydict() == expected
        assert table.schema.types == [pa.string(), pa.float64(), pa.string()]


def test_plain_types():
    table = pa.table(
        {
            "half": pa.array(np.array([0.5, np.nan], np.float16)),
            "large": pa.array([["a"], None], pa.large_list(pa.string())),
            "nothing": pa.nulls(2),
            "decimal": pa.array([1, 2]).cast(pa.decimal128(21, 2)),
        }
    )
    plain = read_table(table)
    assert plain.schema.types == [pa.float32(), pa.list_(pa.string()), pa.string(), pa.float64()]
    assert plain.column("half").to_pylist() == [0.5, None]


def test_a_known_column_of_another_type_is_refused():
    with pytest.raises(TableError, match="column 'start_seconds' is string"):
        read_table(pa.table({"path": ["a.mp4"], "start_seconds": ["early"]}))


MARKS = ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"]
MARKS += ["NA", "NULL", "NaN", "None", "n/a", "nan", "null"]


@pytest.mark.parametrize("mark", MARKS)
def test_the_marks_of_pandas_are_missing_everywhere(tmp_path, mark):
    pandas = pytest.importorskip("pandas")
    (tmp_path / "a.csv").write_text(f"path,grade,age\na,low,61\nb,{mark},{mark}\nc, {mark} , {mark}\n")
    assert read_table(tmp_path / "a.csv").column("grade").to_pylist() == ["low", None, None]
    assert read_table(tmp_path / "a.csv").column("age").to_pylist() == [61, None, None]
    frame = pandas.DataFrame({"grade": ["low", mark]})
    assert read_table(frame).column("grade").to_pylist() == ["low", None]
    assert read_table({"grade": ["low", mark]}).column("grade").to_pylist() == ["low", None]


def test_none_and_a_dash_are_values():
    assert read_table({"grade": ["none", "-", "na"]}).column("grade").to_pylist() == ["none", "-", "na"]


@pytest.mark.parametrize("values", [[1, "a", 2.5, None], ["a", 1], [1.5, ["a"]]])
def test_a_column_of_several_types_is_named(values):
    pandas = pytest.importorskip("pandas")
    columns = {"age": [1] * len(values), "finding": values}
    frame = pandas.DataFrame({name: pandas.Series(each, dtype=object) for name, each in columns.items()})
    for table in (columns, frame):
        with pytest.raises(TableError, match=r"column 'finding' mixes .*astype\(str\)"):
            read_table(table)
