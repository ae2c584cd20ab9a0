import pyarrow as pa
import pyarrow.parquet as pq


def test_a_table_of_predictions_becomes_a_page(tmp_path, cinefeed):
    table = pa.table(
        {
            "id": [f"v{i}" for i in range(24)],
            "target": [("sick", "well")[i % 2] for i in range(24)],
            "score": [(i * 7 % 24) / 24 for i in range(24)],
            "person": [f"p{i // 4}" for i in range(24)],
            "sex": ["fm"[i // 4 % 2] for i in range(24)],
        }
    )
    pq.write_table(table, tmp_path / "p.parquet")
    words = "--group person --subgroups sex --classes well,sick --json".split()
    done = cinefeed("report", tmp_path / "p.parquet", *words)
    assert done.code == 0 and done.json == {"page": str(tmp_path / "p.html")}
    html = (tmp_path / "p.html").read_text()
    assert "leave out each person as a whole" in html and "By sex:" in html and "predicted probability of sick" in html


def test_a_run_is_not_measured_anew(tmp_path, cinefeed):
    done = cinefeed("report", tmp_path, "--unit", "patient")
    assert done.code == 2 and "are for a table of predictions" in done.err
    done = cinefeed("report", tmp_path)
    assert done.code == 2 and "not a run folder" in done.err
    done = cinefeed("report", tmp_path / "none.csv")
    assert done.code != 0 and "none.csv" in done.err
