import json

import numpy as np
import pytest


@pytest.fixture
def two_alike(videos):
    """The folder of videos with pictures in them, of which two show the same."""
    rng = np.random.default_rng(0)
    for number, path in enumerate(sorted(videos.rglob("*.npy"))):
        coarse = np.random.default_rng(max(number, 1)).integers(0, 200, (6, 6, 6), np.uint8)
        frames = coarse.repeat(2, axis=1).repeat(2, axis=2)
        np.save(path, frames + rng.integers(0, 4, frames.shape, np.uint8))
    return videos


def test_a_check_says_what_to_do_and_exits_with_1_where_something_is_wrong(cinefeed, two_alike, manifest, tmp_path):
    out = tmp_path / "split.parquet"
    assert cinefeed("split", manifest, "--out", out, "--no-group", "--seed", 1).code == 0
    done = cinefeed("check", out, "--target", "kind", "--group", "patient", "--frames", 4)
    assert done.code == 1, done.err
    assert "What to do, worst first:" in done.out
    assert "ERROR: " in done.out
    assert "patient in more than one part" in done.out


def test_json_holds_the_same(cinefeed, two_alike, manifest):
    done = cinefeed("check", manifest, "--target", "kind", "--group", "patient", "--json")
    assert done.code == 0, done.out
    assert done.json["ok"]
    assert [pair["kind"] for pair in done.json["pairs"]] == ["near_duplicate"]
    assert done.json["notes"] > 0
    assert {"code", "severity", "advice", "rows"} <= done.json["findings"][0].keys()


def test_strict_counts_warnings(cinefeed, two_alike, manifest):
    words = ["check", manifest, "--frames", 4, "--stride", 2]
    assert cinefeed(*words).code == 0
    assert cinefeed(*words, "--strict").code == 1


def test_short_videos_and_rows_chosen(cinefeed, two_alike, manifest):
    words = ["check", manifest, "--frames", 4, "--stride", 2, "--json"]
    by_code = {each["code"]: each for each in cinefeed(*words).json["findings"]}
    assert by_code["short_videos"]["count"] == 12
    few = cinefeed(*words, "--where", "kind=a").json
    assert few["rows"] == 6
    assert cinefeed(*words, "--where", "patient!=p0,p3").json["rows"] == 8


def test_a_page_is_written(cinefeed, two_alike, manifest, tmp_path):
    page = tmp_path / "pages" / "check.html"
    done = cinefeed("check", manifest, "--target", "kind", "--group", "patient", "--page", page, "--json")
    assert (done.code, done.json["page"]) == (0, str(page))
    assert "data:image/png" in page.read_text()
    hidden = cinefeed("check", manifest, "--target", "kind", "--private", "--page", page)
    assert hidden.code == 0
    assert "data:image/png" not in page.read_text()


def test_a_wrong_question_is_refused(cinefeed, manifest, videos, tmp_path):
    for words, code, message in (
        (["--target", "kimd"], 2, "did you mean 'kind'?"),
        (["--group", "patent"], 2, "did you mean 'patient'?"),
        (["--nuisance", "sight"], 2, "'sight'"),
        (["--stride", 2], 2, "--frames"),
        (["--frames", 0], 2, "frames"),
        (["--where", "kind=c"], 1, "kind='c'"),
        (["--where", "kind!=a,b"], 1, "no row is left without kind=a, b"),
    ):
        done = cinefeed("check", manifest, *words)
        assert (done.code, done.out) == (code, "")
        assert message in done.err
    table = tmp_path / "table.csv"
    table.write_text("path\na.npy\n")
    assert cinefeed("check", table).code == 2


def test_a_manifest_that_was_not_scanned(cinefeed, manifest, tmp_path):
    import pyarrow.parquet as pq

    bare = tmp_path / "bare.parquet"
    pq.write_table(pq.read_table(manifest).select(["path", "kind"]).replace_schema_metadata(None), bare)
    done = cinefeed("check", bare)
    assert done.code == 1
    assert "cinefeed scan" in done.err


def test_json_stays_json_where_something_is_wrong(cinefeed, two_alike, manifest, videos):
    next(videos.rglob("*.npy")).unlink()
    done = cinefeed("check", manifest, "--json")
    assert done.code == 1
    assert not json.loads(done.out)["ok"]


def test_the_groups_that_would_cure_leaks_are_written_and_split_takes_them(cinefeed, two_alike, manifest, tmp_path):
    out, groups = tmp_path / "split.parquet", tmp_path / "groups.csv"
    assert cinefeed("split", manifest, "--out", out, "--no-group", "--seed", 1).code == 0
    done = cinefeed("check", out, "--group", "patient", "--groups", groups, "--json")
    assert done.code == 1 and done.json["groups"] == str(groups)
    assert "12 rows in 6 groups" in done.err and groups.read_text().startswith('"id","check_group"')
    cured = tmp_path / "cured.parquet"
    done = cinefeed("split", out, "--out", cured, "--group-table", groups, "--test", 0.2, "--val", 0.2)
    assert done.code == 0 and "of 'patient'" not in done.err  # groups join patients: none can be in two parts
    done = cinefeed("check", cured, "--group", "patient", "--json")
    assert done.code == 0, done.out
    done = cinefeed("split", out, "--out", cured, "--group-table", groups, "--no-group")
    assert done.code == 2 and "--group-table and --no-group exclude each other; give one of them" in done.err
    done = cinefeed("split", out, "--out", cured, "--group-table", groups, "--group", "site")
    assert done.code == 2 and "--group and --group-table exclude each other" in done.err
    done = cinefeed("split", out, "--out", cured)
    assert done.code == 2 and "add --group COLUMN (the patient; candidates: patient (6 values in 12 rows))" in done.err
    done = cinefeed("check", out, "--groups", tmp_path / "groups.xlsx")
    assert done.code == 2 and ".parquet, .csv or .json" in done.err


SETTINGS = """
[data]
manifest = "{manifest}"
target = "kind"

[data.split]
{split}

[clip]
frames = 3

[frame]
height = 6
width = 6

[feed]
batch_size = 2

[train]
out = "run"
folds = {folds}
"""


def test_the_parts_are_those_that_training_makes_of_the_settings(cinefeed, two_alike, manifest, tmp_path):
    from cinefeed.config import read_settings
    from cinefeed.data.manifest.manifest import Manifest
    from cinefeed.training.setup import make_parts, usable_rows

    sorted(two_alike.rglob("*.npy"))[-1].write_bytes(b"no array")
    assert cinefeed("scan", two_alike, "--labels", two_alike.parent / "labels.csv", "--out", manifest).code == 0
    config = tmp_path / "run.toml"

    def check(split, *words, folds=0):
        config.write_text(SETTINGS.format(manifest=manifest, split=split, folds=folds))
        done = cinefeed("check", "--config", config, "--json", *words)
        return {each["code"]: each for each in done.json["findings"]}, done.json["classes"]

    findings, classes = check("group = false\nseed = 1\nval = 0.3\ntest = 0.3")
    rows, _ = usable_rows(Manifest.read(manifest))
    parts = make_parts(rows, read_settings(config)).all
    assert {name: sum(each.get(name, 0) for each in classes.values()) for name in ("train", "val", "test")} == {
        name: parts.column("split").to_pylist().count(name) for name in ("train", "val", "test")
    }
    assert "not_split" not in findings and "rows_without_split" not in findings
    findings, _ = check("group = false\nseed = 1\nval = 0.3\ntest = 0.3", "--group", "patient")
    assert "groups_across_splits" in findings
    findings, _ = check('group = "patient"\nseed = 1\nval = 0.3\ntest = 0.3')
    assert "groups_across_splits" not in findings
    findings, _ = check('group = "patient"', folds=3)
    assert not {"groups_across_splits", "not_split"} & findings.keys()
    findings, _ = check('group = "patient"\nval = 0.01\ntest = 0.98')
    assert findings["no_parts"]["severity"] == "error" and "train" in findings["no_parts"]["detail"]
    leaking = Manifest.read(manifest).with_column("cohort", ["train", "test"] * 6)
    leaking.write(manifest)
    findings, _ = check('column = "cohort"\ngroup = "patient"')
    assert {"no_parts", "groups_across_splits"} <= findings.keys()
    findings, _ = check('column = "cohort"', folds=3)
    assert "cross-validation splits all rows" in findings["no_parts"]["detail"]
    done = cinefeed("train", "--config", config)
    assert done.code and findings["no_parts"]["detail"].split()[-8:] == done.err.split()[-8:]
